//! The `#[root_task]` attribute.
//!
//! It checks the shape of `main` and leaves everything else to
//! `sel4_root_task::declare_root_task!`, which is readable Rust.

use proc_macro::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Expr, Ident, ItemFn, ReturnType, Token, Type};

/// Makes a function the root task's main function.
///
/// The function takes `&sel4::BootInfoPtr` and returns `!` or
/// `Result<Never, E>` with `E: Debug`; an error is reported like a panic.
///
/// - `stack_size = <bytes>`: 64 KiB where left out. A guard page lies below.
/// - `heap_size = <bytes>`: 64 KiB where left out.
///
/// Sizes are constant expressions and are rounded up to whole pages.
#[proc_macro_attribute]
pub fn root_task(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = syn::parse_macro_input!(arguments as Arguments);
    let main = syn::parse_macro_input!(item as ItemFn);
    expand(&arguments, &main).unwrap_or_else(|error| error.to_compile_error().into())
}

fn expand(arguments: &Arguments, main: &ItemFn) -> syn::Result<TokenStream> {
    if main.sig.inputs.len() != 1 {
        return Err(syn::Error::new_spanned(
            &main.sig,
            "the main function of a root task takes one argument: `&sel4::BootInfoPtr`",
        ));
    }
    let name = &main.sig.ident;
    let ends = match &main.sig.output {
        ReturnType::Type(_, ty) if matches!(**ty, Type::Never(_)) => quote!(never),
        ReturnType::Type(..) => quote!(result),
        ReturnType::Default => {
            return Err(syn::Error::new_spanned(
                &main.sig,
                "the main function of a root task returns `!` or `Result<Never, E>`: \
                 nothing would run after it",
            ));
        }
    };
    let stack_size = match &arguments.stack_size {
        Some(size) => quote!(#size),
        None => quote!(::sel4_root_task::DEFAULT_STACK_SIZE),
    };
    let heap_size = match &arguments.heap_size {
        Some(size) => quote!(#size),
        None => quote!(::sel4_root_task::DEFAULT_HEAP_SIZE),
    };
    Ok(quote! {
        #main
        ::sel4_root_task::declare_root_task!(#ends, #name, #stack_size);
        ::sel4_root_task::declare_heap!(#heap_size);
    }
    .into())
}

#[derive(Default)]
struct Arguments {
    stack_size: Option<Expr>,
    heap_size: Option<Expr>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let mut arguments = Self::default();
        for Argument { name, value } in Punctuated::<Argument, Token![,]>::parse_terminated(input)?
        {
            let slot = match name.to_string().as_str() {
                "stack_size" => &mut arguments.stack_size,
                "heap_size" => &mut arguments.heap_size,
                _ => {
                    return Err(syn::Error::new(
                        name.span(),
                        "expected `stack_size` or `heap_size`",
                    ));
                }
            };
            if slot.replace(value).is_some() {
                return Err(syn::Error::new(name.span(), "given twice"));
            }
        }
        Ok(arguments)
    }
}

struct Argument {
    name: Ident,
    value: Expr,
}

impl Parse for Argument {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let name = input.parse()?;
        input.parse::<Token![=]>()?;
        Ok(Self {
            name,
            value: input.parse()?,
        })
    }
}

//! The `#[protection_domain]` attribute.
//!
//! It checks the shape of the function and leaves everything else to
//! `sel4_microkit::declare_protection_domain!`.

use proc_macro::TokenStream;
use quote::quote;
use syn::{ItemFn, ReturnType};

/// Makes a function the initialisation of a protection domain: it takes
/// nothing and returns what implements `sel4_microkit::Handler`.
#[proc_macro_attribute]
pub fn protection_domain(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let init = syn::parse_macro_input!(item as ItemFn);
    expand(&arguments, &init).unwrap_or_else(|error| error.to_compile_error().into())
}

fn expand(arguments: &TokenStream, init: &ItemFn) -> syn::Result<TokenStream> {
    let refuse = |what: &str| Err(syn::Error::new_spanned(&init.sig, what));
    if !arguments.is_empty() {
        return refuse("`protection_domain` takes no arguments: the stack is in the description");
    }
    if !init.sig.inputs.is_empty() {
        return refuse("the initialisation of a protection domain takes no arguments");
    }
    if matches!(init.sig.output, ReturnType::Default) {
        return refuse("the initialisation of a protection domain returns its `Handler`");
    }
    let name = &init.sig.ident;
    Ok(quote! {
        #init
        ::sel4_microkit::declare_protection_domain!(#name);
    }
    .into())
}

//! What must not be in any output, in the forms it could be there by mistake.

use base64ct::{Base64Unpadded, Encoding};

/// Shorter secrets are looked for as they are: what they encode to could be
/// there by chance.
const ENCODED_BYTES_MIN: usize = 6;

/// `secret` as it is, as hexadecimal digits, as the list of numbers that Rust's
/// `Debug` makes of bytes, and in Base64 wherever it begins there.
pub(crate) fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    if secret.len() < ENCODED_BYTES_MIN {
        return forms;
    }
    let each = |write: fn(u8) -> String| secret.bytes().map(write).collect::<Vec<_>>();
    forms.push(each(|byte| format!("{byte:02x}")).concat());
    forms.push(each(|byte| format!("{byte:02X}")).concat());
    forms.push(each(|byte| format!("{byte:02x}")).join(" "));
    forms.push(each(|byte| byte.to_string()).join(", "));
    forms.extend((0..3).map(|before| in_base64(secret.as_bytes(), before)));
    forms
}

/// The characters that Base64 makes of `secret` alone where `before` bytes,
/// modulo three, are in front of it.
fn in_base64(secret: &[u8], before: usize) -> String {
    let bytes = [&[0; 2][..before], secret].concat();
    let text = Base64Unpadded::encode_string(&bytes);
    let first = (before * 8).div_ceil(6);
    let end = bytes.len() * 8 / 6;
    text[first..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form() {
        let forms = forms("secret!");
        let shown = |output: &str| forms.iter().any(|form| output.contains(form.as_str()));
        assert!(shown("the secret! itself"));
        assert!(shown("id=73656372657421"));
        assert!(shown("ID=7365637265742 73656372657421FF"));
        assert!(shown("00000000  73 65 63 72 65 74 21  |.......|"));
        assert!(shown("[0, 115, 101, 99, 114, 101, 116, 33, 7]"));
        for before in ["", "1", "12", "123"] {
            let bytes = format!("{before}secret!??");
            assert!(shown(&Base64Unpadded::encode_string(bytes.as_bytes())));
        }
        assert!(!shown("a secret"));
    }

    #[test]
    fn a_short_one_has_one_form() {
        assert_eq!(forms("t"), ["t"]);
    }
}

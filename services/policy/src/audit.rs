//! Audit records as lines: what happened is in clear, who it was about is not.
//!
//! Identities are shown as short names that hold until the next boot: an HMAC
//! under a key made at start. Two records about one session can be put
//! together; nobody who reads the log learns an identity, nor can they test a
//! guess.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of an identity's short name.
const SHORT_BYTES: usize = 4;
/// Longest text of a caller that is shown, in characters.
const TEXT_MAX: usize = 32;

/// A record, in the words of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What kind of event.
    pub event: &'a str,
    /// How it ended.
    pub result: &'a str,
    /// Why.
    pub reason: &'a str,
    /// The terminal's or connection's event.
    pub terminal_event_id: &'a [u8],
    /// The session.
    pub session_id: &'a [u8],
    /// The principal.
    pub principal_id: &'a [u8],
    /// Its profile.
    pub profile: &'a str,
    /// How it was proved.
    pub auth_method: &'a str,
    /// What it is about ends with the system.
    pub volatile: bool,
}

/// Makes lines of records.
pub struct Redactor {
    key: [u8; KEY_BYTES],
}

impl core::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
    }
}

impl Redactor {
    /// With a key nobody else knows.
    #[must_use]
    pub const fn new(key: [u8; KEY_BYTES]) -> Self {
        Self { key }
    }

    /// The line of a record.
    #[must_use]
    pub fn line(&self, record: &Record<'_>) -> String {
        let mut line = format!(
            "audit: event={} result={} reason={}",
            record.event, record.result, record.reason
        );
        for (name, id) in [
            ("terminal", record.terminal_event_id),
            ("session", record.session_id),
            ("principal", record.principal_id),
        ] {
            let short = self.short(name, id);
            // Writing to a string does not fail.
            let _ = write!(line, " {name}={short}");
        }
        let volatile = record.volatile;
        let _ = write!(
            line,
            " profile={} method={} volatile={volatile}",
            shown(record.profile),
            shown(record.auth_method)
        );
        line
    }

    /// The short name of an identity; each kind has names of its own.
    fn short(&self, kind: &str, id: &[u8]) -> String {
        if id.is_empty() {
            return "-".into();
        }
        let Ok(mut mac) = <Hmac<Sha256> as Mac>::new_from_slice(&self.key) else {
            return "?".into();
        };
        mac.update(kind.as_bytes());
        mac.update(&[0]);
        mac.update(id);
        let tag = mac.finalize().into_bytes();
        tag[..SHORT_BYTES]
            .iter()
            .fold(String::new(), |mut out, byte| {
                let _ = write!(out, "{byte:02x}");
                out
            })
    }
}

/// A caller's text: what is a word is shown, anything else becomes `?`, so
/// that no text can pass for another field or line.
#[must_use]
pub fn shown(text: &str) -> String {
    if text.is_empty() {
        return "-".into();
    }
    let is_word = |c: &char| c.is_ascii_alphanumeric() || "-_.:".contains(*c);
    let mut out: String = text
        .chars()
        .take(TEXT_MAX)
        .map(|c| if is_word(&c) { c } else { '?' })
        .collect();
    if text.chars().nth(TEXT_MAX).is_some() {
        out.push('~');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn record<'a>(session_id: &'a [u8], profile: &'a str) -> Record<'a> {
        Record {
            event: "auth",
            result: "denied",
            reason: "password",
            terminal_event_id: &[],
            session_id,
            principal_id: b"principal",
            profile,
            auth_method: "password",
            volatile: true,
        }
    }

    #[test]
    fn a_line_says_what_happened() {
        let line = Redactor::new([7; KEY_BYTES]).line(&record(b"session", "operator"));
        assert!(
            line.starts_with("audit: event=auth result=denied reason=password terminal=- session=")
        );
        assert!(line.ends_with(" profile=operator method=password volatile=true"));
        assert!(!line.contains("principal=principal"));
    }

    #[test]
    fn names_depend_on_the_key_and_the_kind() {
        let line = |key, id| Redactor::new([key; KEY_BYTES]).line(&record(id, "p"));
        assert_eq!(line(1, b"a"), line(1, b"a"));
        assert_ne!(line(1, b"a"), line(2, b"a"));
        assert_ne!(line(1, b"a"), line(1, b"b"));
        let redactor = Redactor::new([1; KEY_BYTES]);
        assert_ne!(
            redactor.short("session", b"a"),
            redactor.short("principal", b"a")
        );
    }

    proptest! {
        /// One line of printable characters, bounded, with every field once,
        /// whatever a caller sends.
        #[test]
        fn no_text_breaks_a_line(profile in ".{0,80}", id in proptest::collection::vec(any::<u8>(), 0..64)) {
            let line = Redactor::new([3; KEY_BYTES]).line(&record(&id, &profile));
            prop_assert!(line.chars().all(|c| c.is_ascii_graphic() || c == ' '));
            prop_assert!(line.len() < 256);
            let fields: Vec<&str> = line.split(' ').collect();
            prop_assert_eq!(fields.len(), 10);
            for name in ["session=", "principal=", "profile=", "method=", "volatile="] {
                prop_assert_eq!(fields.iter().filter(|field| field.starts_with(name)).count(), 1);
            }
        }
    }
}

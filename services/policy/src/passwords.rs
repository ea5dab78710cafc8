//! Which console password there is: the manifest's, or one made while the
//! system runs, which is gone with it.

use capos_lib::credential::{
    ConsoleCredentialStateError, ConsolePasswordVerifier, ConsolePasswordVerifierError,
    MAX_CONSOLE_PASSWORD_BYTES,
};

/// State of the console password.
#[derive(Clone, Debug, Default)]
pub struct Passwords {
    bootstrap: Option<ConsolePasswordVerifier>,
    overlay: Option<ConsolePasswordVerifier>,
    /// A password is being made.
    making: bool,
}

/// Whether there is a password, and whether it ends with the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// There is one.
    pub configured: bool,
    /// It is kept in memory only.
    pub volatile: bool,
}

impl Passwords {
    /// As the manifest has it; an empty string stands for no password.
    ///
    /// # Errors
    /// The manifest's verifier is none.
    pub fn new(verifier: &str) -> Result<Self, ConsolePasswordVerifierError> {
        let bootstrap = match verifier {
            "" => None,
            phc => Some(ConsolePasswordVerifier::parse(phc)?),
        };
        Ok(Self {
            bootstrap,
            ..Self::default()
        })
    }

    /// With the password that was made before, by its verifier.
    ///
    /// # Errors
    /// It is no verifier.
    pub fn restored(self, verifier: &str) -> Result<Self, ConsolePasswordVerifierError> {
        let overlay = Some(ConsolePasswordVerifier::parse(verifier)?);
        Ok(Self { overlay, ..self })
    }

    /// Whether there is a password.
    #[must_use]
    pub const fn status(&self) -> Status {
        Status {
            configured: self.bootstrap.is_some() || self.overlay.is_some(),
            volatile: self.overlay.is_some(),
        }
    }

    /// The verifier in force.
    #[must_use]
    pub fn verifier(&self) -> Option<&str> {
        let active = self.overlay.as_ref().or(self.bootstrap.as_ref());
        active.map(ConsolePasswordVerifier::phc)
    }

    /// Whether `password` may become the first one. If so, it is being made
    /// until [`Self::made`].
    ///
    /// # Errors
    /// As upstream's: it is empty or too long, or there is one already.
    pub fn begin(&mut self, password: &[u8]) -> Result<(), ConsoleCredentialStateError> {
        use ConsoleCredentialStateError as Refused;
        if password.is_empty() {
            return Err(Refused::EmptyPassword);
        }
        if password.len() > MAX_CONSOLE_PASSWORD_BYTES {
            return Err(Refused::PasswordTooLong);
        }
        if self.status().configured || self.making {
            return Err(Refused::AlreadyConfigured);
        }
        self.making = true;
        Ok(())
    }

    /// Ends what [`Self::begin`] began: with the verifier, or without one.
    ///
    /// # Errors
    /// `DeriveFailed` without a verifier within bounds.
    pub fn made(&mut self, verifier: Option<&str>) -> Result<Status, ConsoleCredentialStateError> {
        self.making = false;
        let parsed = verifier.map(ConsolePasswordVerifier::parse);
        let Some(Ok(parsed)) = parsed else {
            return Err(ConsoleCredentialStateError::DeriveFailed);
        };
        self.overlay = Some(parsed);
        Ok(self.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hashing;
    use alloc::string::String;
    use alloc::vec;
    use alloc::vec::Vec;
    use argon2::Block;
    use capos_lib::credential::ConsoleCredentialState;
    use proptest::prelude::*;

    fn verifier() -> String {
        let mut blocks = vec![Block::new(); hashing::blocks_for_new()];
        hashing::derive(b"bootstrap", b"sixteen bytes ok", &mut blocks).expect("derived")
    }

    fn both(phc: &str) -> (Passwords, ConsoleCredentialState) {
        let ours = Passwords::new(phc).expect("within bounds");
        let upstream = ConsoleCredentialState::new(phc).expect("within bounds");
        (ours, upstream)
    }

    fn create(ours: &mut Passwords, password: &[u8]) -> Result<(bool, bool), String> {
        let derived = |password: &[u8]| {
            let mut blocks = vec![Block::new(); hashing::blocks_for_new()];
            hashing::derive(password, b"sixteen bytes ok", &mut blocks).ok()
        };
        let made = ours
            .begin(password)
            .and_then(|()| ours.made(derived(password).as_deref()));
        made.map(|status| (status.configured, status.volatile))
            .map_err(|error| alloc::format!("{error:?}"))
    }

    #[test]
    fn it_behaves_as_upstreams_state() {
        let passwords: [&[u8]; 5] = [b"", &[7; 257], b"first", b"second", &[7; 256]];
        for phc in [String::new(), verifier()] {
            let (mut ours, mut upstream) = both(&phc);
            for password in passwords {
                let expected = upstream
                    .create_console_password(password, |salt| {
                        salt.fill(3);
                        true
                    })
                    .map_err(|error| alloc::format!("{error:?}"));
                assert_eq!(create(&mut ours, password), expected);
                let status = ours.status();
                let expected = upstream.console_password_status();
                assert_eq!((status.configured, status.volatile), expected);
            }
        }
    }

    #[test]
    fn a_password_that_was_made_stays_made() {
        let phc = verifier();
        let passwords = Passwords::default().restored(&phc);
        let mut passwords = passwords.expect("a verifier");
        assert_eq!(passwords.verifier(), Some(&*phc));
        let volatile = Status {
            configured: true,
            volatile: true,
        };
        assert_eq!(passwords.status(), volatile);
        assert!(passwords.begin(b"another password").is_err());
        assert!(Passwords::default().restored("a note").is_err());
    }

    #[test]
    fn a_verifier_out_of_bounds_is_no_start() {
        assert!(Passwords::new("not a verifier").is_err());
        assert!(Passwords::new(&"a".repeat(513)).is_err());
    }

    proptest! {
        /// Whatever is asked in whatever order, the first password stays.
        #[test]
        fn there_is_one_password_at_most(asked in proptest::collection::vec(any::<(bool, u8)>(), 0..20)) {
            let phc = "$argon2id$v=19$m=8,t=1,p=1$c2l4dGVlbiBieXRlcyBvaw$\
                       MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";
            let mut passwords = Passwords::default();
            let mut making = false;
            let mut seen: Vec<Status> = Vec::new();
            for (ends, length) in asked {
                if ends && making {
                    let phc = (length % 2 == 0).then_some(phc);
                    prop_assert_eq!(passwords.made(phc).is_ok(), phc.is_some());
                    making = false;
                } else {
                    let begun = passwords.begin(&vec![1; length.into()]).is_ok();
                    prop_assert_eq!(begun, length > 0 && !making && !passwords.status().configured);
                    making |= begun;
                }
                let status = passwords.status();
                prop_assert_eq!(status.configured, passwords.verifier().is_some());
                prop_assert!(seen.iter().all(|earlier| !earlier.configured || status.configured));
                seen.push(status);
            }
        }
    }
}

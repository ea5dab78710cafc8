//! Programs of the boot package, looked up and checked once.
//!
//! Finding a file in the archive and deciding how to load it takes longer than
//! starting a process of it. Both depend on the file alone, which never
//! changes, so the first process of a program pays and the others find the
//! answer here. What is kept is bounded by the archive: a name that is not in
//! it leaves nothing behind.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use capos_config::RESERVED_INIT_BINARY_NAME;
use capos_loader::LoadPlan;
use ring_server_core::PrepareError;

use crate::archive::Package;
use crate::log;

/// A program that may become a process.
pub struct Program {
    /// Its name in the manifest.
    pub name: String,
    /// Its ELF file.
    pub file: &'static [u8],
    /// What the file asks for.
    pub plan: LoadPlan,
}

/// The programs that were asked for so far, sorted by name.
#[derive(Default)]
pub struct Programs {
    known: Vec<Rc<Program>>,
}

impl Programs {
    /// None yet.
    pub const fn new() -> Self {
        Self { known: Vec::new() }
    }

    /// The program `name` of `package`. The supplied init is given once and not
    /// kept.
    ///
    /// # Errors
    /// [`PrepareError::NoSuchProgram`]; [`PrepareError::BadProgram`], with the
    /// reason in the log.
    pub fn find(&mut self, package: &mut Package, name: &str) -> Result<Rc<Program>, PrepareError> {
        let at = self
            .known
            .binary_search_by(|program| program.name.as_str().cmp(name));
        match at {
            Ok(at) => Ok(Rc::clone(&self.known[at])),
            Err(at) => {
                let program = Rc::new(read(package, name)?);
                if name != RESERVED_INIT_BINARY_NAME {
                    self.known.insert(at, Rc::clone(&program));
                }
                Ok(program)
            }
        }
    }
}

fn read(package: &mut Package, name: &str) -> Result<Program, PrepareError> {
    let file = package.program(name)?;
    let plan = LoadPlan::parse(file).map_err(|error| {
        log!("{name} was refused: {error}");
        PrepareError::BadProgram
    })?;
    Ok(Program {
        name: String::from(name),
        file,
        plan,
    })
}

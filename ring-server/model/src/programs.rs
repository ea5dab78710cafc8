//! Programs of the model machine: names that can be spawned, and what became
//! of them. A spawned program does nothing until a test acts for it.

use ring_server_core::{CAPSET_PAGE_BYTES, Class, Embryo, Pid, PrepareError, Protection};

use crate::system::{Client, DATA, DATA_BYTES, RODATA};
use crate::{Memory, ModelRing};

/// What the machine can start, is starting and has started.
#[derive(Debug, Default)]
pub struct Programs {
    /// Names of the programs that load.
    pub names: Vec<String>,
    /// Programs that can still be launched before memory runs out, if that is
    /// limited.
    pub room: Option<u32>,
    /// Clients that were launched and not yet taken by the test.
    pub launched: Vec<Client>,
    /// How urgent processes are: each launch and each change, in order.
    pub classes: Vec<(Pid, Class)>,
    /// Processes that ended, with their codes.
    pub buried: Vec<(Pid, i64)>,
    embryo: Option<(Memory, ModelRing)>,
}

/// A name of [`Programs::names`] with this prefix is a file the loader refuses.
const BAD_PREFIX: &str = "bad";

/// The memory every simulated process starts with.
pub(crate) fn fresh_memory() -> Memory {
    let mut memory = Memory::default();
    memory.map(DATA, DATA_BYTES, Protection::READ_WRITE);
    memory.map(RODATA, 4096, Protection::READ);
    memory
}

impl Programs {
    pub(crate) fn prepare(&mut self, name: &str) -> Result<Embryo<ModelRing>, PrepareError> {
        assert!(
            self.embryo.is_none(),
            "launch or discard follows each prepare"
        );
        if !self.names.iter().any(|known| known == name) {
            return Err(PrepareError::NoSuchProgram);
        }
        if name.starts_with(BAD_PREFIX) {
            return Err(PrepareError::BadProgram);
        }
        let (memory, ring) = (fresh_memory(), ModelRing::new());
        let space = memory.address_space();
        self.embryo = Some((memory, ring.clone()));
        Ok(Embryo { ring, space })
    }

    /// Returns the memory of the process that starts.
    pub(crate) fn launch(
        &mut self,
        pid: Pid,
        class: Class,
        capset: &[u8; CAPSET_PAGE_BYTES],
    ) -> Result<Memory, PrepareError> {
        let (memory, ring) = self.embryo.take().expect("prepare comes before launch");
        match &mut self.room {
            Some(0) => return Err(PrepareError::NoMemory),
            Some(room) => *room -= 1,
            None => {}
        }
        self.classes.push((pid, class));
        self.launched
            .push(Client::new(pid, ring, Box::new(*capset)));
        Ok(memory)
    }

    pub(crate) fn discard(&mut self) {
        let embryo = self.embryo.take();
        assert!(embryo.is_some(), "prepare comes before discard");
    }
}

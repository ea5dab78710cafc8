//! The files behind the programs of a description.

use std::path::{Path, PathBuf};

use super::{Complaint, Description, Origin, ProgramFile, Refusal};
use crate::{budget, gate, image};

impl Description {
    /// Makes paths usable from here, finds programs that are only named, and
    /// checks every file that is there already.
    ///
    /// # Errors
    /// [`Refusal`]: what is missing, and every file that could not run.
    pub(super) fn locate_programs(&mut self, search: Option<&Path>) -> Result<(), Refusal> {
        let beside = self.path.parent().unwrap_or(Path::new("")).to_owned();
        let mut complaints = Vec::new();
        for program in &mut self.programs {
            let located = locate(program, &beside, search.unwrap_or(&beside));
            complaints.extend(located.and_then(|()| check(program)).err());
        }
        if complaints.is_empty() {
            return self.fits();
        }
        Err(Refusal::new(&self.path, &self.text, complaints))
    }

    /// Whether the programs that are linked already fit the machine, as often
    /// as they run.
    fn fits(&self) -> Result<(), Refusal> {
        let linked = self.programs.iter().filter_map(|program| {
            let file = match &program.origin {
                Origin::Path { path, .. } => std::fs::read(path).ok()?,
                Origin::Embedded(file) => file.clone(),
                Origin::Published | Origin::Named => return None,
            };
            Some((program.name.as_str(), file))
        });
        let linked: Vec<(&str, Vec<u8>)> = linked.collect();
        let find = |name: &str| linked.iter().find(|(known, _)| *known == name);
        let running = self.running().filter_map(find);
        let running: Vec<(&str, &[u8])> = running
            .map(|(name, file)| (*name, file.as_slice()))
            .collect();
        let fits = budget::check_programs(self.memory_mib, &running);
        fits.map(drop).map_err(|error| self.refuse_budget(&error))
    }
}

fn locate(program: &mut ProgramFile, beside: &Path, search: &Path) -> Result<(), Complaint> {
    match &mut program.origin {
        Origin::Path { path, .. } => *path = beside.join(&*path),
        Origin::Named => {
            let path = find(&program.name, search).ok_or_else(|| {
                let what = format!("there is no file for program `{}`", program.name);
                let advice = format!(
                    "put the ELF file or package `{}` into {}, or say where with --programs DIR",
                    program.name,
                    display(search)
                );
                Complaint::new(&program.name_span, what, advice)
            })?;
            program.origin = Origin::Path { path, bin: None };
        }
        Origin::Published | Origin::Embedded(_) => {}
    }
    Ok(())
}

/// A program by its name alone: a file, with or without `.elf`, or a package.
fn find(name: &str, search: &Path) -> Option<PathBuf> {
    let plain = search.join(name);
    let suffixed = search.join(format!("{name}.elf"));
    [plain, suffixed]
        .into_iter()
        .find(|path| path.is_file() || is_package(path))
}

fn is_package(path: &Path) -> bool {
    path.join("Cargo.toml").is_file()
}

fn check(program: &ProgramFile) -> Result<(), Complaint> {
    match &program.origin {
        Origin::Path { path, bin } => check_path(program, path, bin.as_deref()),
        Origin::Embedded(file) => check_file(program, file),
        Origin::Published | Origin::Named => Ok(()),
    }
}

fn check_path(program: &ProgramFile, path: &Path, bin: Option<&str>) -> Result<(), Complaint> {
    let complain = |what: String, advice: &str| Complaint::new(&program.span, what, advice);
    if is_package(path) {
        return Ok(());
    }
    if path.is_dir() {
        let what = format!("{} is a directory without Cargo.toml", display(path));
        return Err(complain(what, "name the directory of a Cargo package"));
    }
    if !path.exists() {
        let what = format!("program `{}`: there is no {}", program.name, display(path));
        let advice = "build it first, or correct the path: it is relative to this file";
        return Err(complain(what, advice));
    }
    if bin.is_some() {
        let what = format!("`bin` beside the file {}", display(path));
        return Err(complain(
            what,
            "take `bin` out: it chooses among the programs of a package",
        ));
    }
    let file = std::fs::read(path).map_err(|error| {
        complain(
            format!("{}: {error}", display(path)),
            "make the file readable",
        )
    })?;
    check_file(program, &file)
}

/// Checks what can be seen of a linked program: that the loader takes it, and
/// that every system call site can be given the gate.
fn check_file(program: &ProgramFile, file: &[u8]) -> Result<(), Complaint> {
    let complain = |what: String, advice: &str| Err(Complaint::new(&program.span, what, advice));
    let name = &program.name;
    if !file.starts_with(b"\x7fELF") {
        let what = format!("program `{name}` is not an ELF file");
        return complain(
            what,
            "name a linked program, or the directory of its package",
        );
    }
    if let Err(error) = image::check_program(name, file) {
        let advice = "link it with the runtime's linker script: name its package directory instead";
        return complain(error.to_string(), advice);
    }
    if let Err(error) = gate::inspect(file) {
        let what = format!("program `{name}`: {error}");
        return complain(what, "see docs/gate.md for how system calls are found");
    }
    Ok(())
}

fn display(path: &Path) -> String {
    if path.as_os_str().is_empty() {
        ".".into()
    } else {
        path.display().to_string()
    }
}

//! Takes the DWARF out of a BPF object: four fifths of it, which neither the kernel nor the agent reads. BTF stays.

use anyhow::{Context, Result, ensure};
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

/// The object without its debug sections.
///
/// # Errors
/// If it is no ELF file, or holds no BTF.
pub(super) fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(object).context("not an ELF file")?;
    for section in &mut elf.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    elf.delete_orphans();
    let has_btf = elf.sections.iter().any(|section| section.name.as_slice() == b".BTF");
    ensure!(has_btf, "no .BTF section");
    // LLVM keeps the names of symbols and sections in one table; the writer wants one for each.
    let names = elf.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    elf.set_section_sizes();
    let mut stripped = Vec::new();
    elf.write(&mut stripped).context("cannot write the ELF file")?;
    Ok(stripped)
}

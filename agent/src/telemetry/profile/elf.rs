//! Names of functions by the symbol table of an ELF file: read in pieces, of which nothing is kept but what is asked for.

use super::symbols::Nearest;
use object::elf::{
    FileHeader64, NT_GNU_BUILD_ID, PT_LOAD, SHN_UNDEF, SHT_DYNSYM, SHT_SYMTAB, STT_FUNC, STT_GNU_IFUNC, Sym64,
};
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _};
use object::{Endianness, ReadCache};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// How much of a symbol table is read at a time.
const PIECE_SYMBOLS: usize = 4_096;

/// The longest name that is read: what is longer is cut.
const MOST_NAME_BYTES: usize = 4_096;

/// What a file says of itself, without its symbols.
pub(super) struct ElfFile {
    file: File,
    endian: Endianness,
    /// What of the file is loaded: where it is in the file, how long, and the address that the linker gave it.
    loaded: Vec<[u64; 3]>,
    symbols: Option<Table>,
    build_id: Option<String>,
}

/// A symbol table, by places in the file.
#[derive(Clone, Copy)]
struct Table {
    start: u64,
    bytes: u64,
    names: u64,
}

/// A function, by what its symbol says.
#[derive(Clone, Copy, Default)]
struct Function {
    bytes: u64,
    /// Where in the file its name is.
    name: u64,
}

impl ElfFile {
    /// Reads a file's headers.
    ///
    /// # Errors
    /// It is no ELF file of 64 bits, or cannot be read.
    pub(super) fn of(file: File) -> io::Result<Self> {
        let cache = ReadCache::new(file.try_clone()?);
        let header = FileHeader64::<Endianness>::parse(&cache).map_err(io::Error::other)?;
        let endian = header.endian().map_err(io::Error::other)?;
        let (mut loaded, mut build_id) = (Vec::new(), None);
        for segment in header.program_headers(endian, &cache).map_err(io::Error::other)? {
            if segment.p_type(endian) == PT_LOAD {
                loaded.push([segment.p_offset(endian), segment.p_filesz(endian), segment.p_vaddr(endian)]);
            }
            if let Ok(Some(mut notes)) = segment.notes(endian, &cache) {
                while let Ok(Some(note)) = notes.next() {
                    if note.name() == b"GNU" && note.n_type(endian) == NT_GNU_BUILD_ID {
                        build_id = Some(note.desc().iter().map(|byte| format!("{byte:02x}")).collect());
                    }
                }
            }
        }
        let sections = header.section_headers(endian, &cache).map_err(io::Error::other)?;
        // A library that was stripped has what others link with.
        let symbols = [SHT_SYMTAB, SHT_DYNSYM].into_iter().find_map(|kind| {
            let table = sections.iter().find(|section| section.sh_type(endian) == kind)?;
            let names = sections.get(table.sh_link(endian) as usize)?.sh_offset(endian);
            Some(Table { start: table.sh_offset(endian), bytes: table.sh_size(endian), names })
        });
        Ok(Self { file, endian, loaded, symbols, build_id })
    }

    /// What the linker has told this file from others by, in hexadecimal.
    pub(super) fn build_id(&self) -> Option<String> {
        self.build_id.clone()
    }

    /// The names of the functions at these places in the file, which are in order and of one segment.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn names(&self, offsets: &[u64]) -> io::Result<Vec<Option<String>>> {
        let Some(table) = self.symbols else { return Ok(vec![None; offsets.len()]) };
        let addresses: Vec<u64> = offsets.iter().map(|offset| self.address(*offset)).collect();
        let mut nearest = Nearest::<Function>::of(&addresses);
        const SYMBOL_BYTES: usize = size_of::<Sym64<Endianness>>();
        // Aligned as symbols are.
        let mut piece = vec![0_u64; PIECE_SYMBOLS * SYMBOL_BYTES / size_of::<u64>()];
        let piece = object::bytes_of_slice_mut(&mut piece);
        let mut read = 0;
        while read < table.bytes {
            let length = (table.bytes - read).min(piece.len() as u64) as usize;
            self.file.read_exact_at(&mut piece[..length], table.start + read)?;
            read += length as u64;
            let symbols = object::slice_from_bytes::<Sym64<Endianness>>(piece, length / SYMBOL_BYTES);
            let (symbols, _) = symbols.map_err(|()| io::Error::other("a symbol table of another kind"))?;
            for symbol in symbols {
                let is_function = matches!(symbol.st_type(), STT_FUNC | STT_GNU_IFUNC);
                if is_function && symbol.st_shndx.get(self.endian) != SHN_UNDEF {
                    nearest.offer(symbol.st_value.get(self.endian), |kept| {
                        *kept = Function {
                            bytes: symbol.st_size.get(self.endian),
                            name: table.names + u64::from(symbol.st_name.get(self.endian)),
                        };
                    });
                }
            }
        }
        let found = nearest.found().into_iter().zip(&addresses);
        let named = found.map(|(found, address)| {
            let (start, function) = found?;
            // What assembly gives no size reaches to the next.
            let is_within = function.bytes == 0 || address - start < function.bytes;
            is_within.then(|| self.text(function.name)).flatten()
        });
        Ok(named.collect())
    }

    /// The linker's address of a place in the file.
    fn address(&self, offset: u64) -> u64 {
        let holds =
            |[start, length, _]: &&[u64; 3]| (*start..start.saturating_add(*length)).contains(&offset);
        self.loaded.iter().find(holds).map_or(offset, |[start, _, address]| offset - start + address)
    }

    /// The text at a place in the file, up to its closing zero.
    fn text(&self, offset: u64) -> Option<String> {
        let mut bytes = vec![0; MOST_NAME_BYTES];
        let read = self.file.read_at(&mut bytes, offset).ok()?;
        let text = bytes[..read].split(|byte| *byte == 0).next()?;
        (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_elf_file_is_refused() {
        let mut file = tempfile::tempfile().unwrap();
        assert!(ElfFile::of(file.try_clone().unwrap()).is_err(), "empty");
        io::Write::write_all(&mut file, &[0x7f; 4_096]).unwrap();
        assert!(ElfFile::of(file).is_err(), "no ELF");
    }
}

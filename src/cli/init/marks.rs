//! Blocks of lines in a mail server's file, between marks by which they are found again.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::Path;

use anyhow::{Context, Result};

use super::block::Block;

const BEGIN: &str = "# Countersign begins here (countersign init --undo takes this out)";
const END: &str = "# Countersign ends here";

/// Puts blocks into a file. Its other lines, its owner and its mode stay.
pub(super) fn put(path: &Path, blocks: &[Block]) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    replace(path, with(&text, blocks).as_bytes())
}

/// Takes the blocks out of a file again.
pub(super) fn remove(path: &Path) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    replace(path, without(&text).as_bytes())
}

/// Whether a text has such blocks.
pub(super) fn are_in(text: &str) -> bool {
    text.lines().any(|line| line.trim() == BEGIN)
}

fn with(text: &str, blocks: &[Block]) -> String {
    let mut new = String::new();
    let put = |new: &mut String, at: usize| {
        for block in blocks.iter().filter(|block| block.line == at) {
            for line in [BEGIN].into_iter().chain(block.text.trim_end().lines()).chain([END]) {
                *new += line;
                new.push('\n');
            }
        }
    };
    let lines = text.split_inclusive('\n');
    let mut count = 0;
    for line in lines {
        put(&mut new, count);
        new += line;
        count += 1;
    }
    put(&mut new, count);
    new
}

fn without(text: &str) -> String {
    let mut is_ours = false;
    let kept = text.split_inclusive('\n').filter(|line| match line.trim() {
        BEGIN => {
            is_ours = true;
            false
        }
        END if is_ours => {
            is_ours = false;
            false
        }
        _ => !is_ours,
    });
    kept.collect()
}

/// Replaces the content of a file as a whole, with the owner and the mode that it has.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let path = fs::canonicalize(path).with_context(|| path.display().to_string())?;
    if fs::read(&path).is_ok_and(|now| now == content) {
        return Ok(());
    }
    let about = fs::metadata(&path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut new = tempfile::Builder::new().permissions(about.permissions()).tempfile_in(folder)?;
    new.write_all(content)?;
    fchown(&new, Some(about.uid()), Some(about.gid()))?;
    new.as_file().sync_all()?;
    new.persist(&path).with_context(|| path.display().to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn block(line: usize, text: &str) -> Block {
        Block { place: String::new(), line, text: text.to_owned() }
    }

    #[test]
    fn blocks_go_in_and_out() {
        let text = "a\n  b\nc";
        let new = with(text, &[block(0, "x\n"), block(2, "  y\n  z\n")]);
        assert_eq!(new, format!("{BEGIN}\nx\n{END}\na\n  b\n{BEGIN}\n  y\n  z\n{END}\nc"));
        assert!(are_in(&new) && !are_in(text));
        assert_eq!(without(&new), text);
        assert_eq!(with("a\n", &[block(1, "x")]), format!("a\n{BEGIN}\nx\n{END}\n"));
        assert_eq!(without("a\n# Countersign ends here\nb\n"), "a\n# Countersign ends here\nb\n");
    }

    #[test]
    fn a_file_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exim.conf");
        fs::write(&path, "a\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        put(&path, &[block(0, "x")]).unwrap();
        assert!(are_in(&fs::read_to_string(&path).unwrap()));
        remove(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }
}

//! Pages of HTML in a file, which need no script and no other file.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use maud::{Markup, PreEscaped, html};

use crate::html::STYLE;

/// The head of a page.
pub(super) fn head(title: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
            title { (title) }
            style { (PreEscaped(STYLE)) }
        }
    }
}

/// Writes a page to another file first, so that nobody sees half of it.
///
/// # Errors
/// Names the file.
pub(super) fn write_page(page: &str, path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(folder)?;
        file.write_all(page.as_bytes())?;
        file.persist(path).map_err(|error| error.error)
    };
    write().map(drop).with_context(|| format!("--html {}", path.display()))
}

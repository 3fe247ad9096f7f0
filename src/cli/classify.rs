//! `classify`
use crate::envelope::bounce::Scanner;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// `countersign classify`
#[derive(Debug, Args)]
pub(super) struct Classify {
    #[arg(long)]
    tsv: bool,
    paths: Vec<PathBuf>,
}

pub(super) fn run(args: &Classify) -> Result<bool> {
    let mut files = Vec::new();
    for path in &args.paths {
        if path.is_dir() {
            for e in std::fs::read_dir(path)? {
                files.push(e?.path());
            }
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    for file in files {
        let mut scanner = Scanner::of_text();
        scanner.push(&std::fs::read(&file)?);
        scanner.finish();
        let found = scanner.found();
        if args.tsv {
            let ev = found.returned.names().join(",");
            println!(
                "{}\t{}\t{}\t{}",
                file.display(),
                found.kind.name(),
                u8::from(found.kind.is_ndr()),
                if ev.is_empty() { "-" } else { &ev }
            );
        } else {
            println!(
                "{}: {} ({}) {:?}",
                file.display(),
                found.kind.name(),
                found.reasons.join(", "),
                found.recipients.len()
            );
        }
    }
    Ok(true)
}

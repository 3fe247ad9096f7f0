//! Classifies a message: `cargo run --example classify < message.eml`.
//!
//! Prints the kind of the message, the reasons for it, and which headers of a returned original were found.

use std::io::Read as _;

use countersign::envelope::bounce::Scanner;

fn main() -> std::io::Result<()> {
    let mut scanner = Scanner::of_text();
    let mut piece = [0; 8192];
    // The scanner accepts pieces of any size, and keeps about 20 KiB of a message, however long it is.
    loop {
        let length = std::io::stdin().read(&mut piece)?;
        if length == 0 {
            break;
        }
        scanner.push(&piece[..length]);
    }
    scanner.finish();
    let found = scanner.found();
    println!("kind      {}", found.kind.name());
    println!("bounce    {}", if found.kind.is_ndr() { "yes" } else { "no" });
    println!("seen by   {}", found.reasons.join(", "));
    println!("returned  {}", found.returned.names().join(", "));
    Ok(())
}

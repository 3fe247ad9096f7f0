//! Says what a message is: `cargo run --example classify < message.eml`.
//!
//! Prints the kind, how that was seen, and what was found of a returned original.

use std::io::Read as _;

use countersign::envelope::bounce::Scanner;

fn main() -> std::io::Result<()> {
    let mut scanner = Scanner::of_text();
    let mut piece = [0; 8192];
    // In pieces of any size: the scanner keeps about 20 KiB of a message, however long it is.
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

//! The proof that a server belongs to the person who probes it.

use std::io::{self, BufRead as _, Write as _};
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::arguments::{Probe, Proof};
use super::real_server::RealServer;
use crate::cli::dns::Dns;
use crate::cli::interfaces::own_addresses;
use crate::probe::messages::Messages;
use crate::probe::run::shown;
use crate::probe::server::{Expected, transaction};
use crate::probe::site::Site;

/// The label of the TXT record, before the domain.
const LABEL: &str = "_countersign-probe";
/// What the record says before the hash.
const PREFIX: &str = "countersign-probe=";
/// How often a code may be typed.
const TRIES: usize = 3;

/// Proves that the server may be probed.
///
/// # Errors
/// It is not proven. The error says how it can be.
pub(super) fn prove(args: &Probe, server: &mut RealServer, site: &Site) -> Result<Proof> {
    let by_default = match args.token {
        _ if is_own(server.address.ip()) => Proof::Local,
        Some(_) => Proof::Txt,
        None => Proof::Code,
    };
    let proof = args.prove.unwrap_or(by_default);
    match proof {
        Proof::Local if is_own(server.address.ip()) => {}
        Proof::Local => bail!("{} is not an address of this machine; {OTHERWISE}", server.address.ip()),
        Proof::Code => by_code(server, site)?,
        // A name server that the person has chosen may say anything.
        Proof::Txt if args.name_server.is_some() && !is_own(server.address.ip()) => {
            bail!("--name-server cannot be used for the proof of another machine's server; leave it out")
        }
        Proof::Txt => by_txt(args, site)?,
    }
    Ok(proof)
}

const OTHERWISE: &str = "prove that the server is yours by --prove code or --prove txt";

/// Whether an address is one of this machine.
pub(super) fn is_own(address: IpAddr) -> bool {
    address.is_loopback() || own_addresses().contains(&address)
}

/// Mails a code to the user, and asks for it.
fn by_code(server: &mut RealServer, site: &Site) -> Result<()> {
    let mut octets = [0; 3];
    getrandom::fill(&mut octets).context("the system has no random numbers")?;
    let code = data_encoding::HEXUPPER.encode(&octets);
    let pairs: Vec<&str> = [code.get(..2), code.get(2..4), code.get(4..)].into_iter().flatten().collect();
    let message = Messages::of(site).code(&pairs.join("-"));
    let address = server.address;
    let mut session = server.open_first().with_context(|| format!("{address} cannot be probed"))?;
    let reply = transaction(&mut session, &site.sender, &site.user, Some(&message), Expected::Accepted)?;
    drop(session);
    if !reply.is_positive() {
        bail!(
            "the code could not be mailed to {} from {}: {}\n\
             Name an address of yours elsewhere by --sender, or prove that the server is yours by --prove txt",
            site.user,
            site.sender,
            shown(&reply)
        );
    }
    for _ in 0..TRIES {
        anstream::eprint!("A code was mailed to {}. Type it in: ", site.user);
        io::stderr().flush()?;
        let mut typed = String::new();
        if io::stdin().lock().read_line(&mut typed)? == 0 {
            break;
        }
        let typed: String = typed.chars().filter(char::is_ascii_hexdigit).collect();
        if typed.eq_ignore_ascii_case(&code) {
            return Ok(());
        }
        anstream::eprintln!("That is not the code.");
    }
    bail!("the code was not typed in, so nothing was tested")
}

/// Looks for the hash of the token in the DNS.
fn by_txt(args: &Probe, site: &Site) -> Result<()> {
    let name = format!("{LABEL}.{}", site.domain());
    let Some(token) = &args.token else {
        let mut octets = [0; 16];
        getrandom::fill(&mut octets).context("the system has no random numbers")?;
        let token = HEXLOWER.encode(&octets);
        bail!(
            "no token was given. Publish this record:\n\n  {name}. TXT \"{}\"\n\nand run the probe again with --token {token}",
            record(&token)
        )
    };
    if token.len() < 16 {
        bail!("--token is too short to be a secret; --prove txt without it makes one");
    }
    let found = Dns::new(args.name_server)?.txt(&name)?;
    let expected = record(token);
    match found.iter().any(|text| text.trim().eq_ignore_ascii_case(&expected)) {
        true => Ok(()),
        false if found.is_empty() => bail!("{name} has no TXT record; publish \"{expected}\""),
        false => bail!("the TXT record of {name} is not the hash of --token; publish \"{expected}\""),
    }
}

/// The text of the record for a token. Who reads the record does not learn the token.
fn record(token: &str) -> String {
    let hash = HEXLOWER.encode(&Sha256::digest(token.as_bytes()));
    format!("{PREFIX}{}", hash.get(..32).unwrap_or(&hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_of_this_machine_and_documentation_is_not() {
        assert!(is_own([127, 0, 0, 1].into()) && is_own([127, 9, 9, 9].into()));
        assert!(!is_own([203, 0, 113, 9].into()));
    }

    #[test]
    fn a_record_is_the_hash_of_its_token() {
        // printf token | sha256sum
        assert_eq!(record("token"), "countersign-probe=3c469e9d6c5875d37a43f353d4f88e61");
    }
}

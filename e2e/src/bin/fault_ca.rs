//! `fault-ca FOLDER ADDRESS:PORT`: the scriptable CA of the real tests, see `e2e::fault_ca`. Started by `e2e::site`.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use e2e::fault_ca::FaultCa;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let (folder, address) = (words.next().context("FOLDER")?, words.next().context("ADDRESS:PORT")?);
    let address: SocketAddr = address.parse()?;
    let ca = FaultCa::open(Path::new(&folder), &format!("https://{address}"))?;
    ca.serve(address).await
}

//! The fake host against real rustls and its own rules.

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::*;
use crate::power::KillPoint;

const RELOAD: [&str; 1] = ["/usr/sbin/reload"];

fn machine() -> Machine {
    let machine = Machine::new("h1", "10.0.1.1".parse().unwrap(), &SimNet::default(), &FakeDns::default());
    machine.script(&RELOAD, Script::Reload);
    machine.service().add_site("a.test", machine.path("cert.pem"), machine.path("key.pem"));
    machine.start_service(443).unwrap();
    machine
}

fn write_pair(machine: &Machine) -> RootCertStore {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(machine.path("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(machine.path("key.pem"), key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    roots
}

async fn shows(host: &Arc<dyn Host>, roots: RootCertStore) -> bool {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = host.connect("127.0.0.1:443").await.unwrap();
    let name = ServerName::try_from("a.test").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.is_ok()
}

async fn reload(host: &Arc<dyn Host>) -> CommandExit {
    host.run(&RELOAD.map(str::to_owned), Duration::from_secs(5)).await.exit
}

#[tokio::test(start_paused = true)]
async fn a_handshake_shows_the_pair_of_the_last_good_reload() {
    let machine = machine();
    let host = machine.host(PowerSwitch::new());
    let first = write_pair(&machine);
    assert!(!shows(&host, first.clone()).await, "nothing is served before the reload");
    assert_eq!(reload(&host).await, CommandExit::Status(0));
    assert!(shows(&host, first.clone()).await);
    let second = write_pair(&machine);
    assert!(shows(&host, first.clone()).await, "new files are not served by themselves");
    std::fs::write(machine.path("key.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert_eq!(reload(&host).await, CommandExit::Status(1), "key and certificate do not fit");
    assert!(shows(&host, first).await, "the old pair stays");
    assert!(!shows(&host, second).await);
    assert_eq!(machine.ran().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_not_there_and_one_that_hangs_end_as_they_do_in_life() {
    let machine = machine();
    let host = machine.host(PowerSwitch::new());
    let outcome = host.run(&["/bin/none".to_owned()], Duration::from_secs(5)).await;
    assert!(matches!(outcome.exit, CommandExit::NotStarted(_)));
    machine.script(&RELOAD, Script::Hang);
    assert_eq!(reload(&host).await, CommandExit::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_port_has_one_holder_until_it_is_killed() {
    let machine = machine();
    let switch = PowerSwitch::new();
    let host = machine.host(switch.clone());
    let held = host.bind(80).await.unwrap();
    let other = machine.host(PowerSwitch::new());
    assert_eq!(other.bind(80).await.err().unwrap().kind(), io::ErrorKind::AddrInUse);
    assert_eq!(other.socket_holder(other.listeners(80).await).await.unwrap(), "certwright-agent (pid 900)");
    switch.plan(Some(KillPoint { step: Step::HostCall, nth: switch.count(Step::HostCall) + 1 }));
    let killed = tokio::time::timeout(Duration::from_secs(9), host.connect("127.0.0.1:443")).await;
    assert!(killed.is_err(), "a killed program learns nothing");
    assert!(other.bind(80).await.is_ok());
    drop(held);
    assert_eq!(other.connect("127.0.0.1:80").await.err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
}

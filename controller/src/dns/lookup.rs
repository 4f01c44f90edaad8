//! Questions to the domain name system, around hickory. It never caches and never validates DNSSEC: it wants to know
//! what an outsider would hear now. Called by `preflight`; e2e has the second implementation.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use thiserror::Error;

/// Most records that are read from one answer.
const RECORDS_MAX: usize = 64;
/// How long one server may take, and how often all are asked.
const SERVER_TIME_MAX: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
/// Longest time for one question, all servers and attempts included.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest CAA tag and value kept, bytes (RFC 8659 §4.1 gives 15 for tags in use).
const CAA_BYTES_MAX: usize = 512;

/// Answers questions about names.
#[async_trait]
pub trait Lookup: Send + Sync + Debug {
    /// Returns the A and AAAA records of `name`, CNAMEs followed.
    ///
    /// # Errors
    /// When there are none, or it cannot be known.
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, LookupError>;

    /// Returns the CAA records of exactly `name`; climbing to the parents (RFC 8659 §3) is the caller's.
    ///
    /// # Errors
    /// When there are none, or it cannot be known.
    async fn caa(&self, name: &str) -> Result<Vec<CaaRecord>, LookupError>;
}

/// One CAA record (RFC 8659 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaaRecord {
    /// Whether a CA must refuse when it does not know the tag.
    pub critical: bool,
    /// `issue`, `issuewild`, `iodef`…, lower case.
    pub tag: String,
    /// The value; bytes that are not UTF-8 are replaced.
    pub value: String,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LookupError {
    /// NXDOMAIN. A CNAME that leads nowhere looks the same.
    #[error("the name does not exist")]
    NoSuchName,
    /// The name exists, without such records.
    #[error("the name has no such records")]
    NoRecords,
    /// No server gave a usable answer: says nothing about the name.
    #[error("no usable answer: {0}")]
    Unreachable(String),
}

/// Asks the host's resolvers, or those it was given.
#[derive(Clone)]
pub struct Resolver(TokioResolver);

/// Why no resolver could be made.
#[derive(Debug, Error)]
#[error("the resolver configuration cannot be used")]
pub struct ResolverError(#[source] NetError);

impl Resolver {
    /// Asks the servers of /etc/resolv.conf.
    ///
    /// # Errors
    /// When that file cannot be read.
    pub fn system() -> Result<Self, ResolverError> {
        Self::build(TokioResolver::builder_tokio().map_err(ResolverError)?)
    }

    /// Asks these servers, by UDP, and by TCP for large answers.
    ///
    /// # Errors
    /// When hickory refuses the configuration.
    pub fn with_servers(servers: &[SocketAddr]) -> Result<Self, ResolverError> {
        let servers = servers.iter().map(|server| {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            for connection in &mut connections {
                connection.port = server.port();
            }
            NameServerConfig::new(server.ip(), true, connections)
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        Self::build(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
    }

    fn build(mut builder: hickory_resolver::ResolverBuilder<TokioRuntimeProvider>) -> Result<Self, ResolverError> {
        let options = builder.options_mut();
        options.timeout = SERVER_TIME_MAX;
        options.attempts = ATTEMPTS;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        Ok(Self(builder.build().map_err(ResolverError)?))
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Result<Vec<RData>, LookupError> {
        let mut question = Name::from_utf8(name).map_err(|error| LookupError::Unreachable(error.to_string()))?;
        question.set_fqdn(true); // no search domains: the CA has none
        match tokio::time::timeout(QUESTION_TIME_MAX, self.0.lookup(question, kind)).await {
            Ok(Ok(lookup)) => {
                let records = lookup.answers().iter().take(RECORDS_MAX).map(|record| record.data.clone());
                Ok(records.filter(|record| record.record_type() == kind).collect())
            }
            Ok(Err(error)) => Err(explain(&error)),
            Err(_elapsed) => Err(LookupError::Unreachable(format!("no answer in {} s", QUESTION_TIME_MAX.as_secs()))),
        }
    }
}

impl Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

#[async_trait]
impl Lookup for Resolver {
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        let (v4, v6) = tokio::join!(self.ask(name, RecordType::A), self.ask(name, RecordType::AAAA));
        let address = |record: &RData| match record {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        };
        let found: Vec<IpAddr> = [&v4, &v6].into_iter().flatten().flatten().filter_map(address).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        // "Not known" weighs more than "none": half an answer proves nothing.
        let errors: Vec<LookupError> = [v4, v6].into_iter().filter_map(Result::err).collect();
        let unreachable = errors.iter().find(|error| matches!(error, LookupError::Unreachable(_)));
        Err(unreachable.or_else(|| errors.first()).cloned().unwrap_or(LookupError::NoRecords))
    }

    async fn caa(&self, name: &str) -> Result<Vec<CaaRecord>, LookupError> {
        let records = self.ask(name, RecordType::CAA).await?;
        let records: Vec<CaaRecord> = records.iter().filter_map(caa_record).collect();
        if records.is_empty() { Err(LookupError::NoRecords) } else { Ok(records) }
    }
}

fn caa_record(record: &RData) -> Option<CaaRecord> {
    let RData::CAA(caa) = record else { return None };
    (caa.tag.len() + caa.value.len() <= CAA_BYTES_MAX).then(|| CaaRecord {
        critical: caa.issuer_critical,
        tag: caa.tag.to_ascii_lowercase(),
        value: String::from_utf8_lossy(&caa.value).into_owned(),
    })
}

fn explain(error: &NetError) -> LookupError {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            LookupError::NoSuchName
        }
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NoError => {
            LookupError::NoRecords
        }
        NetError::Dns(DnsError::NoRecordsFound(none)) => LookupError::Unreachable(none.response_code.to_string()),
        other => LookupError::Unreachable(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::net::UdpSocket;

    use super::*;

    const NXDOMAIN: u8 = 3;
    const SERVFAIL: u8 = 2;
    const REFUSED: u8 = 5;

    /// Answers A questions with the first response code and this many addresses, others with the second code.
    async fn serve(socket: UdpSocket, codes: [u8; 2], addresses: u8) {
        let mut buffer = [0; 1024];
        loop {
            let (count, peer) = socket.recv_from(&mut buffer).await.unwrap();
            let question = &buffer[12..count];
            let end = question.iter().position(|byte| *byte == 0).unwrap() + 5;
            let is_a = question[end - 4..end] == [0, 1, 0, 1];
            let (code, answers) = if is_a { (codes[0], addresses) } else { (codes[1], 0) };
            let mut reply = buffer[..2].to_vec();
            reply.extend([0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0]);
            reply.extend(&question[..end]);
            for last in 0..answers {
                // A pointer to the question's name, A, IN, 60 s, 4 bytes.
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last]);
            }
            socket.send_to(&reply, peer).await.unwrap();
        }
    }

    async fn ask(codes: [u8; 2], addresses: u8) -> Result<Vec<IpAddr>, LookupError> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let resolver = Resolver::with_servers(&[socket.local_addr().unwrap()]).unwrap();
        tokio::select! {
            found = resolver.addresses("h1.example.test") => found,
            () = serve(socket, codes, addresses) => unreachable!("it serves for ever"),
        }
    }

    #[tokio::test]
    async fn no_name_no_records_and_no_answer_are_three_things() {
        assert_eq!(ask([NXDOMAIN; 2], 0).await, Err(LookupError::NoSuchName));
        assert_eq!(ask([0; 2], 0).await, Err(LookupError::NoRecords));
        for codes in [[SERVFAIL; 2], [REFUSED; 2], [0, SERVFAIL], [SERVFAIL, 0], [NXDOMAIN, REFUSED]] {
            let answer = ask(codes, 0).await;
            assert!(matches!(answer, Err(LookupError::Unreachable(_))), "{codes:?}: {answer:?}");
        }
    }

    #[tokio::test]
    async fn addresses_of_one_family_are_enough_and_their_number_is_limited() {
        assert_eq!(ask([0; 2], 1).await, Ok(vec!["192.0.2.0".parse().unwrap()]));
        let many = ask([0; 2], 25).await.unwrap();
        assert_eq!(many.iter().collect::<BTreeSet<_>>().len(), 25);
        assert_eq!(ask([0; 2], 70).await.unwrap().len(), RECORDS_MAX);
    }

    #[tokio::test]
    async fn what_cannot_be_a_name_is_never_asked() {
        let resolver = Resolver::with_servers(&["127.0.0.1:9".parse().unwrap()]).unwrap();
        let answer = resolver.addresses(&format!("{}.test", "a".repeat(64))).await;
        assert!(matches!(answer, Err(LookupError::Unreachable(_))), "{answer:?}");
    }
}

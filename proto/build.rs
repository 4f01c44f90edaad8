//! Compiles the three protocol packages with protox (no protoc binary) and writes `Method`, one variant per RPC,
//! so that the controller's role table is an exhaustive match: an RPC without a role row does not compile.

use std::fmt::Write as _;
use std::path::PathBuf;

type Error = Box<dyn std::error::Error>;

#[allow(clippy::disallowed_methods, reason = "cargo tells a build script its folder this way")]
fn main() -> Result<(), Error> {
    let files = ["types/v1/types.proto", "agent/v1/agent.proto", "operator/v1/operator.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("method.rs"), methods(&descriptors)?)?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

fn methods(descriptors: &prost_types::FileDescriptorSet) -> Result<String, Error> {
    let mut variants = String::new();
    let mut paths = String::new();
    let mut all = String::new();
    let mut names = String::new();
    for file in &descriptors.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                let variant = format!("{}{}", service.name().trim_end_matches("Service"), method.name());
                writeln!(variants, "    /// `{path}`\n    {variant},")?;
                writeln!(paths, "            {path:?} => Self::{variant},")?;
                writeln!(all, "        Self::{variant},")?;
                writeln!(names, "            Self::{variant} => {:?},", method.name())?;
            }
        }
    }
    Ok(format!(
        "/// Every RPC of the protocol, generated from the `.proto` files.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]\npub enum Method {{\n{variants}}}\n\n\
         impl Method {{\n    /// Every RPC, in file order.\n    pub const ALL: &'static [Self] = &[\n{all}    ];\n\n\
         /// Returns the RPC that an HTTP/2 path names, or `None` for a path of no RPC.\n    \
         #[must_use]\n    pub fn from_path(path: &str) -> Option<Self> {{\n        Some(match path {{\n{paths}            _ => return None,\n        }})\n    }}\n\n    \
         /// Returns its name in its service.\n    #[must_use]\n    pub const fn name(self) -> &'static str {{\n        \
         match self {{\n{names}        }}\n    }}\n}}\n"
    ))
}

//! Which services are installed, and what runs, from /proc. What is out of date when it is told does no harm.

use proto::presets::PRESETS;

use super::files::Files;
use crate::detect::{Service, processes};

/// Most processes that are looked at.
const PROCESSES_MAX: usize = 20_000;
/// Where a service's configuration lies on other systems than Debian.
const ELSEWHERE: [(&str, &str); 1] = [("apache", "/etc/httpd")];

/// Returns the services that are installed here.
pub(super) fn services(files: &Files) -> Vec<Service> {
    let is_there = |preset: &str, dir: &str| {
        files.is_dir(dir) || ELSEWHERE.iter().any(|(one, dir)| *one == preset && files.is_dir(dir))
    };
    let installed = PRESETS.iter().filter(|preset| is_there(preset.name, preset.installed));
    let mut services: Vec<Service> =
        installed.map(|preset| Service { preset: preset.name.to_owned(), ..Service::default() }).collect();
    let numbers = files.names("/proc").into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    for process in numbers.take(PROCESSES_MAX) {
        let Some(name) = files.small(&format!("/proc/{process}/comm")) else { continue };
        let cgroup = files.small(&format!("/proc/{process}/cgroup")).unwrap_or_default();
        let unit = processes::unit_of(&cgroup);
        let Some(service) = processes::service_of(name.trim(), unit) else { continue };
        for found in services.iter_mut().filter(|one| one.preset == service) {
            found.is_running = true;
            if let Some(unit) = unit.filter(|unit| processes::is_own_unit(service, unit)) {
                found.unit = unit.to_owned();
            }
        }
    }
    services
}

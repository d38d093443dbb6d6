//! The places, and what dockless is expected to choose in each.

/// A kind of host or container, by its name in `jail/jail`.
pub struct Place {
    pub name: &'static str,
    /// The isolation that `auto` must come to.
    pub isolation: &'static str,
    /// Further ones that must work there when they are asked for.
    pub others: &'static [&'static str],
}

const fn place(name: &'static str, isolation: &'static str, others: &'static [&'static str]) -> Place {
    Place { name, isolation, others }
}

pub const PLACES: [Place; 13] = [
    place("privileged", "ns", &["ns1", "chroot", "rewrite"]),
    place("user", "ns", &["ns1", "rewrite"]),
    place("user-nosubuid", "ns1", &["rewrite"]),
    place("user-nouserns", "rewrite", &[]),
    place("user-apparmor", "rewrite", &[]),
    place("concourse-unprivileged", "chroot", &["rewrite"]),
    place("concourse-fuse-only", "ns", &["chroot", "rewrite"]),
    place("docker-default", "chroot", &["rewrite"]),
    place("docker-seccomp-off", "ns", &["chroot", "rewrite"]),
    place("podman-default", "ns", &["chroot", "rewrite"]),
    place("k8s-restricted", "rewrite", &[]),
    place("k8s-baseline", "chroot", &["rewrite"]),
    place("k8s-userns", "chroot", &["rewrite"]),
];

pub fn find(name: &str) -> &'static Place {
    PLACES.iter().find(|place| place.name == name).unwrap_or_else(|| panic!("{name}: no such place"))
}

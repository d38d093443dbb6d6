//! What goes out, as an engine hears it.

use std::collections::{BTreeMap, HashMap};

use super::peer::Peer;
use super::{connect, shared};
use crate::base::{Cancel, Progress};
use crate::llb::pb;
use crate::remote::{CacheEntry, Caches, Solve, Work};

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn say(peer: &Peer, work: Work<'_>, caches: Caches, entitlements: &[&str]) {
    let cancel = Cancel::new();
    let solve = Solve {
        work,
        shared: shared(),
        caches,
        archive: None,
        entitlements: entitlements.iter().map(|name| (*name).to_owned()).collect(),
        progress: &Progress::none(),
        cancel: &cancel,
    };
    let said = connect(&peer.address, &cancel).unwrap().solve(solve).unwrap();
    assert_eq!(said, HashMap::from([("said".to_owned(), "so".to_owned())]));
}

#[test]
fn a_frontend_is_asked_for_by_its_name_with_its_options() {
    let peer = Peer::solving(|_| async { Ok(()) });
    let options = pairs(&[("source", "r.example/frontend:1"), ("build-arg:A", "1")]);
    say(&peer, Work::Frontend { name: "gateway.v0", options: &options }, Caches::default(), &["network.host"]);
    let asked = peer.asked.lock().unwrap();
    let [asked] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((asked.definition.as_ref(), asked.frontend.as_str()), (None, "gateway.v0"));
    assert_eq!(asked.frontend_attrs.clone().into_iter().collect::<BTreeMap<_, _>>(), options);
    assert_eq!(asked.entitlements, ["network.host"]);
    assert_eq!(asked.session, asked.r#ref);
}

#[test]
fn a_definition_goes_out_byte_for_byte_with_the_caches_beside_it() {
    let peer = Peer::solving(|_| async { Ok(()) });
    let definition = pb::Definition { def: vec![b"as it is".to_vec()], ..Default::default() };
    let entry = |kind, attributes: &[(&str, &str)]| CacheEntry { kind, attributes: pairs(attributes) };
    let caches = Caches {
        imports: vec![entry("registry", &[("ref", "r.example/c:1")])],
        exports: vec![entry("local", &[("dest", "/c"), ("mode", "max")]), entry("inline", &[])],
    };
    say(&peer, Work::Definition(&definition), caches, &[]);
    let asked = peer.asked.lock().unwrap();
    assert_eq!((asked[0].definition.as_ref(), asked[0].frontend.as_str()), (Some(&definition), ""));
    let cache = asked[0].cache.clone().unwrap();
    let told = |entries: Vec<bollard_buildkit_proto::moby::buildkit::v1::CacheOptionsEntry>| -> Vec<_> {
        let sorted = |attrs: HashMap<String, String>| attrs.into_iter().collect::<BTreeMap<_, _>>();
        entries.into_iter().map(|entry| (entry.r#type, sorted(entry.attrs))).collect()
    };
    assert_eq!(told(cache.imports), [("registry".to_owned(), pairs(&[("ref", "r.example/c:1")]))]);
    let exports =
        [("local".to_owned(), pairs(&[("dest", "/c"), ("mode", "max")])), ("inline".to_owned(), BTreeMap::new())];
    assert_eq!(told(cache.exports), exports);
}

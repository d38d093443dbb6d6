//! What goes out, as an engine hears it.

use std::collections::{BTreeMap, HashMap};

use bollard_buildkit_proto::moby::buildkit::v1::frontend;
use serde_json::json;

use super::peer::Peer;
use super::{connect, shared};
use crate::base::{Cancel, Platform, Progress};
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

/// BuildKit returns several results only to a frontend, and knows which is which only if it is told.
#[test]
fn results_for_several_platforms_are_returned_as_a_frontend_does() {
    let peer = Peer::solving(|_| async { Ok(()) });
    let definition = pb::Definition { def: vec![b"as it is".to_vec()], ..Default::default() };
    let options = pairs(&[("platform", "linux/arm64")]);
    let [amd, arm]: [Platform; 2] = ["linux/amd64", "linux/arm64"].map(|platform| platform.parse().unwrap());
    let works =
        vec![(amd, Work::Definition(&definition)), (arm, Work::Frontend { name: "dockerfile.v0", options: &options })];
    say(&peer, Work::Several(works), Caches::default(), &[]);
    let asked = peer.asked.lock().unwrap();
    let id = &asked[0].r#ref;
    assert_eq!((asked[0].definition.as_ref(), asked[0].frontend.as_str()), (None, ""));
    let made = peer.gateway.made.lock().unwrap();
    let [(first, one), (second, other)] = &made[..] else { panic!("{made:?}") };
    assert_eq!([first, second], [id, id]);
    assert_eq!((one.definition.as_ref(), one.frontend.as_str()), (Some(&definition), ""));
    assert_eq!((other.definition.as_ref(), other.frontend.as_str()), (None, "dockerfile.v0"));
    assert_eq!(other.frontend_opt.clone().into_iter().collect::<BTreeMap<_, _>>(), options);
    assert!(made.iter().all(|(_, request)| request.allow_result_return && request.allow_result_array_ref));
    let returned = peer.gateway.returned.lock().unwrap();
    let [(build, returned)] = &returned[..] else { panic!("{returned:?}") };
    assert_eq!(build, id);
    let result = returned.result.clone().unwrap();
    let Some(frontend::result::Result::Refs(refs)) = result.result else { panic!("{result:?}") };
    let refs: BTreeMap<String, String> = refs.refs.into_iter().map(|(platform, made)| (platform, made.id)).collect();
    assert_eq!(refs, pairs(&[("linux/amd64", "made 0"), ("linux/arm64", "made 1")]));
    let platforms: serde_json::Value = serde_json::from_slice(&result.metadata["refs.platforms"]).unwrap();
    let platform = |arch: &str| json!({"ID": format!("linux/{arch}"), "Platform": {"os": "linux", "architecture": arch, "variant": ""}});
    assert_eq!(platforms, json!({"Platforms": [platform("amd64"), platform("arm64")]}));
}

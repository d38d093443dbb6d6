//! What a build remembers.

use crate::fixture::World;

#[test]
fn a_second_build_is_all_from_the_cache() {
    let Some(world) = World::with_busybox() else { return };
    world.write("file", "one");
    let text = "FROM busybox AS build\nCOPY file /\nRUN cat /file > /built\nFROM scratch\nCOPY --from=build /built /\n";
    let first = world.build(text).ok().0.image.unwrap();
    let second = world.build(text);
    let done: Vec<String> = second
        .ends()
        .into_iter()
        .filter(|end| end.starts_with("done") && !end.contains("[internal]") && !end.contains("exporting"))
        .collect();
    assert_eq!(done, [""; 0]);
    assert_eq!(second.ok().0.image.unwrap().config, first.config, "the same image, to the time it was made");
}

//! A partition's lease, from its beginning to its end.

use super::world::World;
use super::{TINY_CACHE, run};
use crate::pure::partition::{Effect, Input};

fn wants(world: &World, what: impl Fn(&Effect) -> bool) -> bool {
    world.effects.iter().any(what)
}

#[test]
fn what_is_in_hand_keeps_its_lease_while_the_partition_is_given_up() {
    let (mut world, _) = run(1, 100);
    while world.perform_after(Input::Tick {
        cache_bytes: TINY_CACHE,
    }) || world.place.is_none()
    {}
    assert!(world.feed(50));
    for input in [
        Input::Stop,
        Input::Tick {
            cache_bytes: TINY_CACHE,
        },
    ] {
        world.input(input);
    }
    assert!(
        wants(&world, |effect| matches!(effect, Effect::Renew)),
        "a commit may take longer than a lease"
    );
    assert!(!wants(&world, |effect| matches!(effect, Effect::Survey { .. })));
}

//! A document past the checkpoint, as after a restore whose log has a gap behind the snapshot's marker: it is right as it is,
//! and what is put right of it stands where it stood, for that is what the digest counts.

use khala::pure::entity::Entity;
use khala::pure::place::Offset;
use khala::repair::{EntityResult, Intention, Repaired, heal, replay_entity};

use super::operator::healer;
use super::part::Part;
use super::sea::{PARTITION, Sea};
use super::version::ground;
use super::writers::{part, sea, to_its_end};

fn run() -> Entity {
    Entity::parse("run/b").expect("a subject")
}

/// The checkpoint says 2, and `run/b` has the event at 2.
fn ahead() -> Sea {
    let sea = sea();
    sea.lock().part = Part {
        checkpoint: part(2).checkpoint,
        ..part(3)
    };
    sea
}

fn healed(sea: &Sea) -> Repaired {
    let ground = ground(sea);
    let healing = to_its_end(Box::pin(async move {
        heal(&ground, PARTITION, &[run()], &healer(1, 0)).await
    }));
    let mut entities = healing.expect("a calm sea").entities;
    entities.pop().expect("one was asked for").1
}

#[test]
fn a_document_past_the_checkpoint_is_as_the_log_says() {
    let sea = ahead();
    let before = sea.lock().part.documents.clone();
    assert_eq!(healed(&sea), Repaired::Clean);
    let here = ground(&sea);
    let replayed = to_its_end(Box::pin(async move {
        let how = (Intention::Repair, &healer(1, 0));
        replay_entity(&here, PARTITION, &run(), how).await
    }));
    let replayed = replayed.expect("a calm sea").expect("it is known");
    assert_eq!((replayed.result, replayed.offset), (EntityResult::Unchanged, Some(2)));
    assert_eq!(sea.lock().part.documents, before);
}

#[test]
fn one_that_is_lost_past_the_checkpoint_is_put_back_where_it_was() {
    let sea = ahead();
    let before = sea.lock().part.index.clone();
    sea.lock().part.documents.remove(&run());
    assert!(matches!(healed(&sea), Repaired::Rebuilt(_)));
    let state = sea.lock();
    assert_eq!(
        (state.part.index.get(&run()), &before),
        (Some(&Offset(2)), &state.part.index)
    );
    let json = String::from_utf8_lossy(&state.part.documents[&run()].0);
    assert!(json.contains(r#""latest_seq":2"#), "{json}");
}

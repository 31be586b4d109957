use proptest::prelude::*;

use super::*;

fn shard(id: &str, parents: &[&str], closed: bool) -> Shard {
    Shard { id: id.into(), parents: parents.iter().map(|p| p.to_string()).collect(), hash_keys: (0, 1), closed }
}

/// Shard 0 was split into 1 and 2, which were merged into 3.
fn diamond() -> Vec<Shard> {
    vec![
        shard("s0", &[], true),
        shard("s1", &["s0"], true),
        shard("s2", &["s0"], true),
        shard("s3", &["s1", "s2"], false),
    ]
}

fn ready(plan: &mut Plan) -> Vec<String> {
    plan.ready().into_iter().map(|t| t.shard).collect()
}

fn positions(text: &str) -> Positions {
    text.parse().unwrap()
}

#[test]
fn children_wait_for_all_their_parents() {
    let mut plan = Plan::new(From::Horizon, To::Time(9), diamond()).unwrap();
    assert_eq!(ready(&mut plan), ["s0"]);
    assert_eq!(ready(&mut plan), [""; 0]);
    plan.ended("s0", Ended::Closed);
    assert_eq!(ready(&mut plan), ["s1", "s2"]);
    plan.ended("s2", Ended::Closed);
    assert_eq!(ready(&mut plan), [""; 0]);
    plan.ended("s1", Ended::Closed);
    assert_eq!(ready(&mut plan), ["s3"]);
    assert!(!plan.finished());
    plan.ended("s3", Ended::Bound);
    assert!(plan.finished());
}

#[test]
fn behind_a_shard_that_ended_at_the_bound_nothing_is_read() {
    let mut plan = Plan::new(From::Horizon, To::Time(9), diamond()).unwrap();
    ready(&mut plan);
    plan.ended("s0", Ended::Bound);
    assert!(plan.finished());
    plan.learn(vec![shard("s4", &["s3"], false)]);
    assert!(plan.finished());
}

#[test]
fn parents_that_the_service_has_forgotten_hold_nothing_up() {
    let mut plan = Plan::new(From::Horizon, To::Time(9), diamond().split_off(1)).unwrap();
    assert_eq!(ready(&mut plan), ["s1", "s2"]);
}

#[test]
fn positions_start_where_they_say_and_what_is_above_them_is_read() {
    let from = From::Positions(positions("s1:5,s2:end"));
    let mut plan = Plan::new(from, To::Time(9), diamond()).unwrap();
    let tasks = plan.ready();
    let start = Start::After { sequence: Position::from(5), sub: None };
    assert_eq!(tasks, [Task { shard: "s1".into(), start, stop: Stop::Time(9) }]);
    plan.ended("s1", Ended::Closed);
    assert_eq!(plan.ready()[0].start, Start::Horizon);
}

#[test]
fn positions_end_where_they_say_and_what_is_below_them_is_not_read() {
    let mut plan = Plan::new(From::Horizon, To::Positions(positions("s1:5.2,s2:end")), diamond()).unwrap();
    assert_eq!(plan.ready()[0].stop, Stop::End);
    plan.ended("s0", Ended::Closed);
    let stops: Vec<Stop> = plan.ready().into_iter().map(|t| t.stop).collect();
    assert_eq!(stops, [Stop::At { sequence: Position::from(5), sub: Some(2) }, Stop::End]);
    plan.ended("s1", Ended::Bound);
    plan.ended("s2", Ended::Closed);
    assert!(plan.finished());
}

#[test]
fn what_cannot_be_read_as_asked_is_refused() {
    let error = |from, to| Plan::new(from, to, diamond()).unwrap_err().to_string();
    assert!(error(From::Time(9), To::Time(8)).contains("ends before it starts"));
    assert!(error(From::Positions(positions("s9:5")), To::Time(8)).contains("no shard `s9`"));
    assert!(error(From::Horizon, To::Positions(positions("s9:end"))).contains("no shard `s9`"));
    assert!(error(From::Horizon, To::Positions(positions("s3:end"))).contains("open"));
}

#[test]
fn a_shard_that_was_read_to_its_end_may_be_forgotten() {
    let from = From::Positions(positions("gone:end,s1:end,s2:end"));
    let mut plan = Plan::new(from, To::Positions(positions("gone:end,s3:7")), diamond()).unwrap();
    assert_eq!(ready(&mut plan), ["s3"]);
}

#[derive(Debug, Clone)]
enum Change {
    Split(usize),
    Merge(usize),
}

/// A history of reshardings, oldest first.
fn lineage(changes: &[Change]) -> Vec<Shard> {
    let mut all = vec![shard("s000", &[], false), shard("s001", &[], false)];
    for change in changes {
        let open: Vec<String> = all.iter().filter(|s| !s.closed).map(|s| s.id.clone()).collect();
        let (parents, children) = match change {
            Change::Split(i) => (vec![open[i % open.len()].clone()], 2),
            Change::Merge(_) if open.len() < 2 => continue,
            Change::Merge(i) => (vec![open[i % open.len()].clone(), open[(i + 1) % open.len()].clone()], 1),
        };
        all.iter_mut().filter(|s| parents.contains(&s.id)).for_each(|s| s.closed = true);
        let parents: Vec<&str> = parents.iter().map(String::as_str).collect();
        for _ in 0..children {
            all.push(shard(&format!("s{:03}", all.len()), &parents, false));
        }
    }
    all
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![(0_usize..9).prop_map(Change::Split), (0_usize..9).prop_map(Change::Merge)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Shards end in any order; each time one ends, its children exist, and more may.
    #[test]
    fn each_shard_is_read_once_and_after_its_parents(
        changes in prop::collection::vec(change(), 0..20), picks in prop::collection::vec(0_usize..64, 64)
    ) {
        let all = lineage(&changes);
        let mut plan = Plan::new(From::Horizon, To::Time(9), all[..2].to_vec()).unwrap();
        let (mut running, mut ended) = (Vec::new(), Vec::<String>::new());
        let mut picks = picks.into_iter().cycle();
        loop {
            for task in plan.ready() {
                let shard = all.iter().find(|s| s.id == task.shard).unwrap();
                prop_assert!(shard.parents.iter().all(|p| ended.contains(p)), "{} is early", task.shard);
                running.push(task.shard);
            }
            if running.is_empty() {
                break;
            }
            let shard = running.swap_remove(picks.next().unwrap() % running.len());
            let children = all.iter().rposition(|s| s.parents.contains(&shard)).unwrap_or(0);
            let listed = (children + 1 + picks.next().unwrap() % 3).min(all.len());
            plan.learn(all[..listed].to_vec());
            let open = all.iter().any(|s| s.id == shard && !s.closed);
            plan.ended(&shard, if open { Ended::Bound } else { Ended::Closed });
            ended.push(shard);
        }
        prop_assert!(plan.finished());
        ended.sort();
        prop_assert_eq!(ended, all.iter().map(|s| s.id.clone()).collect::<Vec<_>>());
    }

    /// A read that stopped anywhere, and the one that goes on from there, together read each shard once.
    #[test]
    fn what_is_left_is_exactly_what_was_not_read(
        changes in prop::collection::vec(change(), 0..20), read in 0_usize..40
    ) {
        let all = lineage(&changes);
        // Oldest first is an order in which parents come before their children.
        let done: Positions = Positions(all.iter().take(read).filter(|s| s.closed).map(|s| (s.id.clone(), ShardPoint::End)).collect());
        let known = |s: &&Shard| s.parents.iter().all(|p| done.0.contains_key(p));
        let mut plan = Plan::new(From::Positions(done.clone()), To::Time(9), all.clone()).unwrap();
        let mut left = Vec::new();
        while let Some(task) = { left.extend(plan.ready()); left.pop() } {
            prop_assert!(!done.0.contains_key(&task.shard), "{} is read again", task.shard);
            plan.ended(&task.shard, if all.iter().any(|s| s.id == task.shard && s.closed) { Ended::Closed } else { Ended::Bound });
        }
        prop_assert!(plan.finished());
        // And until there, the first read alone.
        let open = all.iter().filter(|s| !s.closed || !done.0.contains_key(&s.id)).filter(known);
        for shard in open {
            let mut again = Plan::new(From::Horizon, To::Positions(done.clone()), all.clone()).unwrap();
            while let Some(task) = again.ready().pop() {
                prop_assert_ne!(&task.shard, &shard.id);
                again.ended(&task.shard, Ended::Closed);
            }
        }
    }
}

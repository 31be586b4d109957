use proptest::prelude::*;

use super::*;

fn pending(lane: Option<&str>, number: usize, bytes: usize) -> Pending {
    let mut data = number.to_string().into_bytes();
    data.resize(bytes.max(data.len()), b' ');
    let entry = Entry { partition_key: "k".into(), explicit_hash_key: None, data: data.into() };
    Pending { lane: lane.map(str::to_string), entry, rows: 1 }
}

fn number(p: &Pending) -> usize {
    std::str::from_utf8(&p.entry.data).unwrap().trim().parse().unwrap()
}

#[test]
fn a_call_holds_as_many_records_and_bytes_as_the_service_takes() {
    let mut outbox = Outbox::default();
    (0..1_200).for_each(|n| outbox.push(pending(None, n, 8)));
    let sizes: Vec<usize> = (0..4).map(|_| outbox.take_call(CALL_BYTES_MAX).len()).collect();
    assert_eq!(sizes, [500, 500, 200, 0]);
    (0..12).for_each(|n| outbox.push(pending(None, n, 1 << 20)));
    // Four and not five: the keys count, too.
    let sizes: Vec<usize> = (0..4).map(|_| outbox.take_call(CALL_BYTES_MAX).len()).collect();
    assert_eq!(sizes, [4, 4, 4, 0]);
    assert_eq!(outbox.bytes, 0);
}

proptest! {
    /// Whatever a call refuses: each record is put once, and those of a lane in order.
    #[test]
    fn records_that_are_refused_are_put_later_in_the_order_of_their_lane(
        lanes in prop::collection::vec(0_usize..5, 0..60),
        sizes in prop::collection::vec(1_usize..400, 60),
        refused in prop::collection::vec(any::<bool>(), 997),
    ) {
        let mut outbox = Outbox::default();
        for (n, lane) in lanes.iter().enumerate() {
            outbox.push(pending(Some(&lane.to_string()), n, sizes[n]));
        }
        let mut refused = refused.into_iter().chain(std::iter::repeat(false));
        let mut put: Vec<usize> = Vec::new();
        while !outbox.waiting.is_empty() {
            let call = outbox.take_call(1_000);
            prop_assert!(!call.is_empty());
            prop_assert!(call.iter().map(Pending::bytes).sum::<usize>() <= 1_000);
            let (failed, done): (Vec<_>, Vec<_>) = call.into_iter().partition(|_| refused.next().unwrap());
            put.extend(done.iter().map(number));
            outbox.put_back(failed);
        }
        prop_assert_eq!(outbox.bytes, 0);
        for lane in 0..5 {
            let of_lane: Vec<usize> = put.iter().copied().filter(|n| lanes[*n] == lane).collect();
            prop_assert!(of_lane.is_sorted());
        }
        put.sort_unstable();
        prop_assert_eq!(put, (0..lanes.len()).collect::<Vec<_>>());
    }
}

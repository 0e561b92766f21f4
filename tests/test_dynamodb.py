"""What DynamoDB is asked and answers, for each primitive: botocore stubbed.

The contract runs against a real server, in integration/test_dynamodb.py.
"""

from __future__ import annotations

import math

import pytest

from integration.support.stubbed_dynamodb import (
    COUNTER,
    EPOCH,
    FAILED,
    FINE,
    RECORD,
    StubbedService,
    item,
)
from service_monitor.errors import Conflict, KeyExists, RecordGone, StoreRefused

# writes and their conditions


def test_number_and_record_are_one_transaction(dynamo: StubbedService) -> None:
    """A later ticket could be seen before an earlier one, and both would hold."""
    dynamo.finds(COUNTER)
    dynamo.gives("transact_write_items")
    record = dynamo.store.create("es/lease/a", "v", 15)
    assert (record.created, record.version) == (5, 5)
    counter, put, check = dynamo.asked[1]["TransactItems"]
    assert counter["Update"]["ConditionExpression"] == "#n = :was"
    values = counter["Update"]["ExpressionAttributeValues"]
    assert (values[":was"], values[":new_n"]) == ({"N": "4"}, {"N": "5"})
    assert values[":new_last_key"] == {"S": "lease/a"}
    assert "attribute_not_exists(#key)" in put["Put"]["ConditionExpression"]
    assert put["Put"]["Item"]["created"] == {"N": "5"}
    # The record of number 4 may still be on its way, though its number is not.
    last = {"label": {"S": "es"}, "key": {"S": "lease/b"}}
    assert check["ConditionCheck"]["Key"] == last
    dynamo.finds(COUNTER | {"last_key": {"S": "lease/a"}})
    dynamo.gives("transact_write_items")
    dynamo.store.update(record, "w", None)
    assert len(dynamo.asked[3]["TransactItems"]) == 2  # one's own, written anyway


def test_what_is_out_of_time_is_not_written_any_more(dynamo: StubbedService) -> None:
    """A ticket whose time is over would be granted the lease after all."""
    dynamo.finds(COUNTER)
    dynamo.gives("transact_write_items")
    dynamo.store.update(RECORD, "w", 60)
    dynamo.gives("update_item")
    dynamo.store.keep_alive(RECORD, 15)
    update = dynamo.asked[1]["TransactItems"][1]["Update"]
    lives = "#dead_after > :now"
    durable = f"(attribute_not_exists(#dead_after) OR {lives})"
    for write, living in (update, durable), (dynamo.asked[2], lives):
        condition = write["ConditionExpression"].split(" AND ")
        assert condition[:2] == ["#created = :created", "#version = :version"]
        assert condition[2:] == [living]
        now_there = float(write["ExpressionAttributeValues"][":now"]["N"]) - EPOCH
        assert now_there < 0.9  # a second later it might be over


def test_all_reads_are_consistent(dynamo: StubbedService) -> None:
    """A node would not see who went before it."""
    dynamo.finds(None)
    dynamo.gives("query", Items=[])
    dynamo.gives("scan", Items=[])
    for prefix in "es/lease/a", "es/lease/", "":
        dynamo.store.list(prefix)
    assert [body["ConsistentRead"] for body in dynamo.asked] == [True] * 3


def test_a_taken_number_is_no_refusal(dynamo: StubbedService) -> None:
    """The second of two that write at once would be told that the key exists."""
    dynamo.finds(COUNTER)
    dynamo.cancels(FAILED, FINE, FINE)
    dynamo.finds(None)
    dynamo.finds(COUNTER | {"n": {"N": "5"}})
    dynamo.gives("transact_write_items")
    assert dynamo.store.create("es/lease/a", "v", 15).created == 6


def test_a_create_repeated_after_a_lost_reply_is_a_success(
    dynamo: StubbedService,
) -> None:
    """A node would wait behind its own ticket."""
    dynamo.finds(COUNTER)
    dynamo.cancels(FAILED, FAILED, FINE)
    dynamo.finds(item("mine", 4, 4))
    assert dynamo.store.create("es/lease/a", "mine", 15).created == 4


def test_a_create_over_a_living_record_is_refused(dynamo: StubbedService) -> None:
    """Two nodes would hold one place."""
    dynamo.finds(COUNTER)
    dynamo.cancels(FINE, FAILED, FINE)
    dynamo.finds(item("other"))
    with pytest.raises(KeyExists):
        dynamo.store.create("es/lease/a", "mine", 15)


def test_an_update_repeated_after_a_lost_reply_is_a_success(
    dynamo: StubbedService,
) -> None:
    """A granted lease would be taken for somebody else's."""
    dynamo.finds(COUNTER)
    dynamo.cancels(FAILED, FAILED)
    dynamo.finds(item("held", 3, 9))
    assert dynamo.store.update(RECORD, "held", 60).version == 9


def test_an_update_of_what_changed_or_went_is_refused(dynamo: StubbedService) -> None:
    """Somebody else's write would be lost, or a dead ticket granted."""
    for found, error in (
        (item("other", 3, 9), Conflict),
        (item("v", 8, 8), RecordGone),
        (None, RecordGone),
    ):
        dynamo.finds(COUNTER)
        dynamo.cancels(FINE, FAILED)
        dynamo.finds(found)
        with pytest.raises(error):
            dynamo.store.update(RECORD, "held", 60)


def test_a_deletion_of_another_life_does_nothing(dynamo: StubbedService) -> None:
    """A newer start's lease would be freed."""
    dynamo.refuses("delete_item", "ConditionalCheckFailedException")
    dynamo.finds(item(created=8, version=8))
    dynamo.store.delete(RECORD)
    dynamo.refuses("delete_item", "ConditionalCheckFailedException")
    dynamo.finds(item(version=9))
    with pytest.raises(Conflict):
        dynamo.store.delete(RECORD)


def test_a_long_answer_is_read_to_its_end(dynamo: StubbedService) -> None:
    """The hosts past the first megabyte would not be joined."""
    key = {"label": {"S": "es"}, "key": {"S": "lease/a"}}
    dynamo.gives("query", Items=[item(created=9)], LastEvaluatedKey=key)
    dynamo.gives("query", Items=[item(created=7)])
    records = dynamo.store.list("es/").records
    assert [record.created for record in records] == [7, 9]
    assert dynamo.asked[1]["ExclusiveStartKey"] == key


def test_a_listing_of_all_leaves_other_prefixes_alone(dynamo: StubbedService) -> None:
    """The counter, or another team's queue, would be shown as ours."""
    labels = "es", "#", "team/es", "team/#"
    found = [item() | {"label": {"S": label}} for label in labels]
    dynamo.gives("scan", Items=found)
    assert [r.key for r in dynamo.store.list("").records] == ["es/lease/a"]


def test_a_listing_within_a_prefix_leaves_what_has_none_alone(
    dynamo: StubbedService,
) -> None:
    """`status` of one team would show another team's queue as its own."""
    team = StubbedService(dynamo.bounds, "/team")
    labels = "es", "#", "team/es", "team/#", "team/a/es"
    found = [item(n) | {"label": {"S": n}} for n in labels]
    team.gives("scan", Items=found)
    assert [r.value for r in team.store.list("").records] == ["team/es"]


@pytest.mark.parametrize("missing", ["value", "created", "alive_until", "dead_after"])
def test_a_strangers_item_is_left_aside_or_told(
    dynamo: StubbedService, missing: str
) -> None:
    """One item put there by hand would end all commands of its label in a traceback."""
    stranger = item()
    del stranger[missing]
    dynamo.gives("query", Items=[item("ours"), stranger])
    assert [r.value for r in dynamo.store.list("es/").records] == ["ours"]
    dynamo.finds(stranger)
    told = "label 'es' and key 'lease/a' is not what we write there: delete it"
    with pytest.raises(StoreRefused, match=told):
        dynamo.store.list("es/lease/a")
    dynamo.finds({"label": {"S": "#"}, "key": {"S": "counter"}})
    with pytest.raises(StoreRefused, match="label '#' and key 'counter' is not"):
        dynamo.store.create("es/lease/a", "v", 15)


def test_a_write_without_an_answer_comes_to_nothing(dynamo: StubbedService) -> None:
    """A ticket would turn up after its owner has left: nobody would ever take it back.

    Its number is used up before the look that tells whether it has arrived.
    """
    dynamo.finds(COUNTER)
    dynamo.refuses("transact_write_items", "AccessDeniedException")  # or any end
    with pytest.raises(StoreRefused):
        dynamo.store.create("es/lease/a", "v", 15)
    dynamo.gives("update_item")
    dynamo.finds(None)
    assert dynamo.store.list("es/lease/a").records == ()
    fence = dynamo.asked[2]
    assert fence["Key"] == {"label": {"S": "#"}, "key": {"S": "counter"}}
    assert fence["ConditionExpression"] == "#n = :was"
    assert fence["ExpressionAttributeValues"] == {
        ":was": {"N": "4"},
        ":new_n": {"N": "5"},
    }
    dynamo.finds(None)  # and it is settled
    dynamo.store.list("es/lease/a")


def test_a_refused_write_may_have_an_earlier_try_under_way(
    dynamo: StubbedService,
) -> None:
    """It would be carried out once the record in its way has gone: after we have."""
    dynamo.finds(COUNTER)
    dynamo.refuses("transact_write_items", "InternalServerError", status=500)
    dynamo.cancels(FINE, FAILED, FINE)  # its number is still free
    dynamo.finds(item("other"))
    with pytest.raises(KeyExists):
        dynamo.store.create("es/lease/a", "v", 15)
    dynamo.gives("update_item")
    dynamo.finds(None)
    dynamo.store.list("es/lease/a")
    assert dynamo.asked[-2]["Key"] == {"label": {"S": "#"}, "key": {"S": "counter"}}


def test_the_very_first_number_can_be_used_up_too(dynamo: StubbedService) -> None:
    """The next write would look for the record of a number that has none."""
    dynamo.finds(None)
    dynamo.refuses("transact_write_items", "AccessDeniedException")
    with pytest.raises(StoreRefused):
        dynamo.store.create("es/lease/a", "v", 15)
    dynamo.refuses("update_item", "ConditionalCheckFailedException")  # it did arrive
    dynamo.finds(item())
    dynamo.store.list("es/lease/a")
    dynamo.finds({"n": {"N": "1"}})
    dynamo.gives("transact_write_items")
    assert dynamo.store.create("es/lease/a", "v", 15).created == 2
    assert len(dynamo.asked[-1]["TransactItems"]) == 2


# time


def test_a_dead_record_is_deleted_before_it_counts_as_gone(
    dynamo: StubbedService,
) -> None:
    """Its owner, waking up, could still turn it into the lease: two would hold."""
    dynamo.gives("query", Items=[item(ends=-3)])
    dynamo.gives("delete_item")
    assert dynamo.store.list("es/").records == ()
    assert dynamo.asked[1]["ConditionExpression"] == "#dead_after <= :now"


def test_a_record_renewed_at_the_last_moment_is_alive(dynamo: StubbedService) -> None:
    """A waiter would lose its place to a look that came a little early."""
    dynamo.gives("query", Items=[item(ends=-3)])
    dynamo.refuses("delete_item", "ConditionalCheckFailedException")
    dynamo.finds(item(ends=15))
    assert dynamo.store.list("es/").records


def test_a_record_whose_second_is_not_over_is_alive(dynamo: StubbedService) -> None:
    """The header counts in whole seconds: half of all would die too early."""
    dynamo.gives("query", Items=[item(ends=0.5), item(created=9, ends=-0.05)])
    assert len(dynamo.store.list("es/").records) == 2


def test_time_left_errs_on_the_short_side(dynamo: StubbedService) -> None:
    """A holder would go on when others already count it as gone."""
    dynamo.finds(item(ends=60))
    assert 56 < dynamo.store.time_left(RECORD) <= 58
    dynamo.finds(item(created=9))
    assert dynamo.store.time_left(RECORD) == 0
    dynamo.finds(None)
    assert dynamo.store.time_left(RECORD) == 0


def test_ends_are_written_wide(dynamo: StubbedService) -> None:
    """A live record would appear dead to whoever has a better clock."""
    dynamo.finds(COUNTER)
    dynamo.gives("transact_write_items")
    dynamo.store.create("es/lease/a", "v", 15)
    put = dynamo.asked[1]["TransactItems"][1]["Put"]["Item"]
    alive, dead = (float(put[n]["N"]) - EPOCH for n in ("alive_until", "dead_after"))
    assert alive <= 15
    assert dead >= 16
    assert int(put["litter_after"]["N"]) > EPOCH + 3600


def test_nothing_ends_a_durable_record(dynamo: StubbedService) -> None:
    """DynamoDB would clean up what is remembered, a day after it was written."""
    dynamo.finds(COUNTER)
    dynamo.gives("transact_write_items")
    record = dynamo.store.create("es/members/a", "v", None)
    put = dynamo.asked[1]["TransactItems"][1]["Put"]["Item"]
    assert put.keys() == {"label", "key", "value", "created", "version"}
    dynamo.finds(put)
    assert dynamo.store.time_left(record) == math.inf
    dynamo.finds(COUNTER)
    dynamo.gives("transact_write_items")
    dynamo.store.update(record, "w", None)
    update = dynamo.asked[4]["TransactItems"][1]["Update"]
    assert (
        update["UpdateExpression"] == "SET #value = :new_value, #version = :new_version"
    )
    dynamo.gives("query", Items=[put])
    assert [r.value for r in dynamo.store.list("es/members/").records] == ["v"]

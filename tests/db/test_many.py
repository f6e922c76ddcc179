"""One statement changes many rows: those that are named, and no other."""

from __future__ import annotations

from sqlalchemy import event, select

from db.engine import writing
from db.many import add_many, set_many
from db.models import PairRow, UserRow


def test_many_rows_get_their_own_numbers_and_all_others_keep_theirs(store, study, four_pairs):
    users = [store.create_user(study.id, f"user {n}").id for n in range(5)]
    pairs = [pair for pair, *_ in four_pairs]
    with writing(store.engine) as connection:
        add_many(connection, UserRow.n_preferences, {users[3]: 2, users[0]: 7})
        add_many(connection, UserRow.n_preferences, {users[3]: -1, 10**6: 5})
        set_many(connection, PairRow.n_annotators, {pairs[1]: 3, pairs[0]: 1})
        set_many(connection, PairRow.n_annotators, {pairs[1]: 2})
    with store.engine.connect() as connection:
        of_users = dict(connection.execute(select(UserRow.id, UserRow.n_preferences)).all())
        of_pairs = dict(connection.execute(select(PairRow.id, PairRow.n_annotators)).all())
    assert [of_users[user] for user in users] == [7, 0, 0, 1, 0]
    assert [of_pairs[pair] for pair in pairs] == [1, 2, 0, 0]


def test_ten_thousand_rows_are_one_statement_and_no_row_is_none(store, study):
    sent = []
    event.listen(store.engine, "before_cursor_execute", lambda *args: sent.append(args[2]))
    with writing(store.engine) as connection:
        set_many(connection, PairRow.n_annotators, {})
        assert not any("update" in statement for statement in sent)
        add_many(connection, UserRow.n_preferences, {n: 1 for n in range(1, 10_001)})
    assert sum("update" in statement for statement in sent) == 1

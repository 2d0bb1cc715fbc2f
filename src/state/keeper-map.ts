/**
 * Room: the state of partitions in a ClickHouse table of the engine KeeperMap, for those whose ClickHouse has a Keeper
 * that nobody else can reach. One row per partition: `key` is the JSON list `[cluster, group, topic, partition]`,
 * `value` the state. Statements go through @clickhouse/client; nothing else of `clickhouse/` may enter.
 *
 * What KeeperMap gives, and what it does not
 *
 * A row is one node in Keeper. `INSERT` makes it, `ALTER … UPDATE value = new WHERE key = … AND value = old` reads it,
 * compares, and sets it. With `keeper_map_strict_mode` both are sound: the first is a `create`, the second a `set` on
 * the version that was read, so what came in between makes it fail ("Bad version"). Without, two that update at once
 * both succeed, which is why the mode goes with every statement and `checkKeeperMap` proves that it is obeyed. The
 * statement is done when it is answered; no mutation stays behind.
 *
 * No answer tells who won. 200 is also given where the condition matched nothing. "Bad version" and "Node exists" are
 * also given to the winner: ClickHouse repeats a request to Keeper whose reply it lost, and stumbles over its own first
 * one. Hence every write is followed by a read, whatever was answered, and the row decides.
 *
 * Why a lost reply cannot lose or double a write
 *
 * A statement whose reply was lost may take effect later: it runs on in ClickHouse, for half a minute when Keeper does
 * not answer. No read can tell "never" from "not yet", so nothing is concluded from a read that shows the old value:
 *
 * 1. Every write is conditional on the whole text that its claim stands on, or on there being none. No two writes share
 *    a text, for each has a name of its own, so a text that was replaced never comes back, and of a statement and its
 *    repetitions at most one takes effect, in whatever order and however late they arrive. That holds even across a row
 *    that was deleted and made anew, except for the very first claim of a partition.
 * 2. A lost reply is answered by sending the same statement again and then reading. The row holds our text: it took
 *    effect, whichever of them it was, and none will again. It holds a third text, and its version (Keeper counts a
 *    node's writes) is not below the one our claim stands on: the old text is gone for good, hence we are fenced.
 * 3. The row holds the old text still, or an older one, or there is no row: the ClickHouse that was asked is behind.
 *    KeeperMap reads from the Keeper server that this ClickHouse has its session with, which may lag; and behind a load
 *    balancer the next ClickHouse may be another one. It is neither success nor fencing: 2 begins anew.
 * 4. When time is up the outcome stays open: KCR_STORE_UNREACHABLE. Calling again with the same claim and state sends
 *    the same statement: still 2. A row that is missing or too old by then was deleted: KCR_STORE.
 *
 * Claims are writes like any other: read, write the new owner on the text that was read, read back. That the first read
 * may be behind does no harm: what it gave is current if and only if the write on it takes effect. A claim that the read
 * does not show, because its reply was lost or somebody was quicker, is made once more, under a new name, over its own
 * effect if it had one. One that takes effect late, after its caller gave up, fences the owner of that time; it never
 * changes a state. `read` alone is as old as the server that answers; only a claim makes it certain.
 */

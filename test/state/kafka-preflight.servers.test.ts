// What is looked at before states are kept in the offsets of a group, on a real broker with rights.
import { AclOperationTypes, AclPermissionTypes, AclResourceTypes, ResourcePatternTypes } from 'kafkajs';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import type { Finding } from '../../src/clickhouse/preflight.js';
import { checkConfig } from '../../src/config/config.js';
import { encodeState } from '../../src/model/state-codec.js';
import { preflight } from '../../src/preflight/preflight.js';
import { withAdmin } from '../stack/clients.js';
import { startStack, type Stack } from '../stack/stack.js';
import { containing, intent, settledAt } from './contract.js';
import { BrokerGroups, makeTopic } from './kafka-broker.js';

let stack: Stack;
let groups: BrokerGroups;
let first: readonly Finding[];
beforeAll(async () => {
  const properties = {
    'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
    'allow.everyone.if.no.acl.found': 'true',
  };
  stack = await startStack({ keeper: false, clickhouse: false, useEnvironment: false, kafka: { properties } });
  for (const topic of ['open', 'closed']) await makeTopic(stack.brokers, topic, 2);
  // On a loaded machine the coordinator of a cluster's first group takes longer than a start waits for it.
  await vi.waitFor(
    async () => {
      first = await found('first', 'open');
      expect(first[0]?.level).toBe('ok');
    },
    { timeout: 90_000, interval: 500 },
  );
  groups = await BrokerGroups.open(stack.brokers);
});
afterAll(async () => {
  await groups?.close();
  await stack?.stop();
});

type Guarantee =
  | { readonly delivery: 'at-least-once' }
  | { readonly delivery: 'exactly-once'; readonly state: { readonly store: 'kafka' } };

function findings(groupId: string, topics: readonly string[], guarantee: Guarantee): Promise<readonly Finding[]> {
  return preflight(
    checkConfig(
      {
        kafka: { brokers: stack.brokers, groupId },
        clickhouse: { url: 'http://127.0.0.1:9' },
        routes: topics.map((topic) => ({ topic, table: topic })),
        ...guarantee,
      },
      {},
    ),
  );
}

async function found(groupId: string, ...topics: string[]): Promise<readonly Finding[]> {
  const all = await findings(groupId, topics, { delivery: 'exactly-once', state: { store: 'kafka' } });
  return all.filter(({ what }) => what === 'state store');
}

const refused = (groupId: string, ...topics: string[]) =>
  vi.waitFor(
    async () => {
      const [finding] = await found(groupId, ...topics);
      expect(finding).toMatchObject({ level: 'refusal' });
      return finding!;
    },
    { timeout: 20_000, interval: 300 },
  );

async function rights(
  ...acl: (readonly [type: AclResourceTypes, name: string, what: AclOperationTypes, permission: AclPermissionTypes])[]
): Promise<void> {
  await withAdmin(stack.brokers, (admin) =>
    admin.createAcls({
      acl: acl.map(([resourceType, resourceName, operation, permissionType]) => ({
        resourceType,
        resourceName,
        operation,
        permissionType,
        resourcePatternType: ResourcePatternTypes.LITERAL,
        principal: 'User:ANONYMOUS',
        host: '*',
      })),
    }),
  );
}

const { GROUP, TOPIC, CLUSTER } = AclResourceTypes;
const { DESCRIBE, ALL, DESCRIBE_CONFIGS } = AclOperationTypes;
const { ALLOW, DENY } = AclPermissionTypes;

test("a cluster's first group, whose coordinator has to be made", () => {
  expect(first).toMatchObject([{ level: 'ok' }]);
});

test('a group that never was, one that has states, one whose members are there: one line each, and nothing is changed', async () => {
  const [fresh, used] = ['fresh', 'used'];
  const days = '; forgotten 7 days after the last member has left';
  expect(await found(fresh, 'open')).toEqual([
    {
      level: 'ok',
      what: 'state store',
      detail: `beside the offsets of the group fresh, 0 of 2 partitions have a state${days}`,
    },
  ]);
  for (const partition of [0, 1, 0x7fffffff])
    expect(await groups.committed({ group: fresh, topic: 'open', partition })).toEqual({
      next: undefined,
      metadata: '',
    });
  const key = { cluster: 'c', group: used, topic: 'open', partition: 1 };
  const metadata = encodeState({ state: settledAt(9, intent(10, 19)), owner: 'x', write: 'y' }, key);
  await groups.put(key, 10, metadata);
  const ok = [
    {
      level: 'ok',
      what: 'state store',
      detail: `beside the offsets of the group used, 1 of 4 partitions have a state${days}`,
    },
  ];
  expect(await found(used, 'open', 'closed')).toEqual(ok);
  await groups.member(used).join('open', 1);
  expect(await found(used, 'open', 'closed')).toEqual(ok);
  expect(await groups.committed(key)).toEqual({ next: 10, metadata });
});

test("another program's metadata is refused with what to do", async () => {
  await groups.put({ group: 'streams', topic: 'open', partition: 0 }, 3, 'AQAAAZ9x');
  expect(await found('streams', 'open')).toEqual([
    {
      level: 'refusal',
      code: 'KCR_STATE_INVALID',
      what: 'state store',
      detail: containing('AQAAAZ9x'),
      todo: containing('a group of its own'),
    },
  ]);
});

test('a user that may look but not commit: for the group, for one of the topics', async () => {
  await rights([GROUP, 'watched', DESCRIBE, ALLOW], [TOPIC, 'closed', DESCRIBE, ALLOW]);
  expect(await refused('watched', 'open')).toMatchObject({
    code: 'KCR_KAFKA',
    detail: containing('Committing offsets'),
    todo: 'grant READ on the consumer group to this user',
  });
  expect(await refused('other', 'open', 'closed')).toMatchObject({
    code: 'KCR_KAFKA',
    detail: containing('topic closed'),
    todo: 'grant READ and DESCRIBE on the topics to this user',
  });
  await rights([GROUP, 'hidden', DESCRIBE, DENY]);
  expect(await refused('hidden', 'open')).toMatchObject({
    code: 'KCR_KAFKA',
    detail: containing('GROUP_AUTHORIZATION_FAILED'),
    todo: containing('consumer group'),
  });
});

test('without a state store too, a user that may not commit for the group is refused before a record is taken', async () => {
  await rights([GROUP, 'sealed', DESCRIBE, ALLOW]);
  await vi.waitFor(
    async () => {
      expect(await findings('sealed', ['open'], { delivery: 'at-least-once' })).toContainEqual({
        level: 'refusal',
        code: 'KCR_KAFKA',
        what: 'group sealed',
        detail: containing('Committing offsets of the topic open failed'),
        todo: 'grant READ on the consumer group to this user',
      });
    },
    { timeout: 20_000, interval: 300 },
  );
});

test("a user that may not see the brokers' configuration is warned", async () => {
  await rights([CLUSTER, 'kafka-cluster', ALL, ALLOW], [CLUSTER, 'kafka-cluster', DESCRIBE_CONFIGS, DENY]);
  await vi.waitFor(
    async () => {
      expect(await found('third', 'open')).toEqual([
        {
          level: 'warning',
          what: 'state store',
          detail: containing('do not tell how much they keep'),
          todo: containing('offset.metadata.max.bytes'),
        },
      ]);
    },
    { timeout: 20_000, interval: 300 },
  );
});

import kafkajs from 'kafkajs';
import { describe, expect, test, vi } from 'vitest';
import type { Membership } from '../../../src/kafka/group/membership.js';
import { Membership as RealMembership } from '../../../src/kafka/group/membership.js';
import { assign, decodeAssignment, subscription, type TopicPartition } from '../../../src/kafka/group/assignor.js';
import type { KafkajsBroker } from '../../../src/kafka/connection/broker.js';
import { grownTopics } from '../../../src/kafka/group/deal.js';
import { sourceSettings, type KafkaSourceOptions } from '../../../src/kafka/options.js';
import { StartOffsets } from '../../../src/kafka/group/start-offsets.js';
import { committedOffsets } from '../../../src/kafka/connection/list-offsets.js';
import type { JoinedGroup } from '../../../src/kafka/group/generation.js';
import type { KafkaConnection } from '../../../src/kafka/connection/kafka-connection.js';

const joined: JoinedGroup = { memberId: 'm', generationId: 1, isLeader: true, partitions: [], grown: new Set() };
const partitions = [
  { topic: 't', partition: 0 },
  { topic: 'u', partition: 0 },
];

/** Topics `t` and `u` with one partition each, whose log holds 5 to 50. */
class FakeKafka {
  readonly calls: string[] = [];
  readonly ids: Record<string, string | undefined> = { t: 'id-t', u: 'id-u' };
  readonly committed: Record<string, number> = {};
  /** Topics whose partition nobody leads. */
  readonly leaderless = new Set<string>();
  /** What stands beside the committed offsets. */
  metadata = '';
  /** Topics of which there is a second partition, whose committed offset is this. */
  readonly others: Record<string, number> = {};
  readonly startOffsets: StartOffsets;
  missing: string[] = [];
  /** Of each place: how far the group has got by what it committed. */
  reached: (number | undefined)[] = [];
  #told: unknown = null;

  constructor(options: Partial<KafkaSourceOptions> = {}) {
    const settings = sourceSettings({ brokers: ['127.0.0.1:1'], groupId: 'g', topics: ['t', 'u'], ...options });
    const membership = {
      committed: (partitions: readonly TopicPartition[]) => committedOffsets(this.#coordinator(), 'g', partitions),
      commitOnce: async (
        _: JoinedGroup,
        { topic, next, metadata }: { topic: string; next: number; metadata: string },
      ) => void this.calls.push(`commit ${topic} ${next} ${metadata}`),
    };
    this.startOffsets = new StartOffsets(this.connection(), settings, membership as unknown as Membership);
  }

  #coordinator(): KafkajsBroker {
    return {
      connectionPool: {},
      offsetFetch: async ({ topics }: { topics: { topic: string; partitions: { partition: number }[] }[] }) => {
        this.calls.push(`offsets of ${topics.map(({ topic }) => topic).join()}`);
        const offsetOf = (topic: string, partition: number) =>
          String((partition === 0 ? this.committed[topic] : this.others[topic]) ?? -1);
        return {
          responses: topics.map(({ topic, partitions: list }) => ({
            topic,
            partitions: list.map(({ partition }) => ({
              partition,
              offset: offsetOf(topic, partition),
              metadata: this.metadata,
            })),
          })),
        };
      },
    } as unknown as KafkajsBroker;
  }

  connection(): KafkaConnection {
    const told = (): unknown => this.#told;
    const brokerPool = {
      get metadata() {
        return told();
      },
    };
    const partitionsOf = (topic: string) => {
      const partitionMetadata = [
        { partitionErrorCode: 0, partitionId: 0, leader: this.leaderless.has(topic) ? -1 : 1 },
      ];
      return topic in this.others
        ? [...partitionMetadata, { partitionErrorCode: 0, partitionId: 1, leader: 1 }]
        : partitionMetadata;
    };
    const listOffsets = async ({ topics }: { topics: { topic: string; partitions: { timestamp: string }[] }[] }) => ({
      responses: topics.map(({ topic, partitions: list }) => ({
        topic,
        partitions: list.map(({ timestamp }) => ({ partition: 0, offset: timestamp === '-2' ? '5' : '50' })),
      })),
    });
    const refreshMetadata = async () => {
      this.calls.push('ids');
      this.#told = {
        topicMetadata: Object.entries(this.ids).map(([topic, topicId]) => ({
          topic,
          topicErrorCode: topicId === undefined ? 3 : 0,
          topicId,
          partitionMetadata: topicId === undefined ? [] : partitionsOf(topic),
        })),
      };
    };
    const findTopicPartitionMetadata = (topic: string) => (this.ids[topic] === undefined ? [] : partitionsOf(topic));
    return {
      cluster: {
        brokerPool,
        refreshMetadata,
        findTopicPartitionMetadata,
        findBroker: async () => ({ listOffsets, connectionPool: {} }),
        addMultipleTargetTopics: async () => undefined,
      },
      cut: () => undefined,
    } as unknown as KafkaConnection;
  }

  async begin(wanted = partitions, of: JoinedGroup = joined): Promise<string[]> {
    this.calls.length = 0;
    const { startOffsets, missing } = await this.startOffsets.of(of, wanted, new AbortController().signal);
    this.missing = missing.map(({ topic }) => topic);
    this.reached = startOffsets.map(({ committed }) => committed);
    startOffsets.forEach((place) => this.startOffsets.begun(place));
    return startOffsets.map(
      ({ topic, topicId, next, recreatedFrom }) =>
        `${topic} ${topicId} at ${next}${recreatedFrom === undefined ? '' : `, was ${recreatedFrom}`}`,
    );
  }
}

describe('where a partition begins', () => {
  test('the ids are asked before the offsets: an offset of the old topic is never paired with the id of the new one', async () => {
    const kafka = new FakeKafka();
    kafka.committed['t'] = kafka.committed['u'] = 7;
    expect(await kafka.begin()).toEqual(['t id-t at 7', 'u id-u at 7']);
    expect(kafka.calls).toEqual(['ids', 'offsets of t,u']);
  });

  test('a place is written down only where nothing was committed: metadata that is kept there is not wiped out', async () => {
    for (const stateDecides of [false, true]) {
      const kafka = new FakeKafka({ stateDecides });
      kafka.committed['t'] = 7;
      expect(await kafka.begin()).toEqual(['t id-t at 7', 'u id-u at 50']);
      expect(kafka.calls.slice(2)).toEqual(['commit u 50 chosen']);
    }
  });

  test('J9: a place that was chosen is not taken for progress, neither at once nor by the next process', async () => {
    const kafka = new FakeKafka();
    kafka.committed['t'] = 7;
    await kafka.begin();
    expect(kafka.reached).toEqual([7, undefined]);
    kafka.committed['u'] = 50;
    kafka.metadata = 'chosen';
    expect(await kafka.begin()).toEqual(['t id-t at 7', 'u id-u at 50']);
    expect(kafka.reached).toEqual([undefined, undefined]);
  });

  test('a topic that Kafka does not tell of is left out, since without its id another could be read in its place', async () => {
    const kafka = new FakeKafka();
    kafka.committed['u'] = 7;
    kafka.ids['t'] = undefined;
    expect(await kafka.begin()).toEqual(['u id-u at 7']);
    expect(kafka.missing).toEqual(['t']);
  });

  test('J6: one partition that nobody leads and that was never committed does not keep the others from being read', async () => {
    for (const options of [{ fromBeginning: true }, { fromBeginning: false }]) {
      const kafka = new FakeKafka(options);
      kafka.leaderless.add('t');
      expect(await kafka.begin()).toEqual([`u id-u at ${options.fromBeginning ? 5 : 50}`]);
      expect(kafka.missing).toEqual(['t']);
      kafka.leaderless.clear();
      expect(await kafka.begin([partitions[0]!])).toEqual([`t id-t at ${options.fromBeginning ? 5 : 50}`]);
    }
  });

  test('J6: one that nobody leads and that was committed begins there: its leader is looked for while it is ours', async () => {
    const kafka = new FakeKafka();
    kafka.committed['t'] = 7;
    kafka.leaderless.add('t');
    expect(await kafka.begin()).toEqual(['t id-t at 7', 'u id-u at 50']);
  });

  test('J3: a partition that was added to a topic the group reads begins at its beginning, whoever is dealt it', async () => {
    const kafka = new FakeKafka();
    expect(await kafka.begin(partitions, { ...joined, grown: new Set(['t']) })).toEqual([
      't id-t at 5',
      'u id-u at 50',
    ]);
  });

  test('J3: also where another program dealt, which says nothing of it; a topic that the group never read begins at its end', async () => {
    const kafka = new FakeKafka();
    kafka.others['t'] = 7;
    expect(await kafka.begin(partitions, { ...joined, grown: undefined })).toEqual(['t id-t at 5', 'u id-u at 50']);
  });

  test('a topic that was recreated begins at its beginning, which is written down where no state is kept', async () => {
    for (const [options, commits] of [
      [{ onReset: 'restart' }, ['commit t 5 chosen']],
      [{ stateDecides: true }, []],
      [{ stateDecides: true, onReset: 'restart' }, []],
    ] as const) {
      const kafka = new FakeKafka(options);
      kafka.committed['t'] = kafka.committed['u'] = 7;
      await kafka.begin();
      kafka.ids['t'] = 'id-t2';
      expect(await kafka.begin()).toEqual(['t id-t2 at 5, was id-t', 'u id-u at 7']);
      expect(kafka.calls.slice(2)).toEqual(commits);
    }
  });

  test('and where nobody decides, no end of the new log is written down, which would skip what it holds', async () => {
    const kafka = new FakeKafka();
    kafka.committed['t'] = kafka.committed['u'] = 7;
    await kafka.begin();
    kafka.ids['t'] = 'id-t2';
    delete kafka.committed['t'];
    expect(await kafka.begin()).toContain('t id-t2 at 50, was id-t');
    expect(kafka.calls.slice(2)).toEqual([]);
  });

  test('a partition that was with another member meanwhile begins where the group stands: the other has begun it again', async () => {
    const kafka = new FakeKafka({ onReset: 'restart' });
    kafka.committed['t'] = kafka.committed['u'] = 7;
    await kafka.begin();
    kafka.startOffsets.keepOnly([partitions[1]!]);
    kafka.ids['t'] = 'id-t2';
    kafka.committed['t'] = 9;
    expect(await kafka.begin()).toContain('t id-t2 at 9');
  });
});

describe('the deal of a group', () => {
  test('J3: topics that got partitions since are told from topics that are begun now, and from those of which nothing is known', () => {
    const all = ['grown', 'new', 'old', 'untold'].flatMap((topic) => [0, 1].map((partition) => ({ topic, partition })));
    const at = (topic: string, partition: number, next: number | undefined) => ({
      topic,
      partition,
      next,
      metadata: '',
    });
    const committed = [
      at('grown', 0, 3),
      at('grown', 1, undefined),
      at('new', 0, undefined),
      at('new', 1, undefined),
      at('old', 0, 0),
      at('old', 1, 9),
    ];
    const errors = new Map([['untold/0', new Error('not told')]]);
    expect(grownTopics(all, { committed, errors })).toEqual(['grown', 'untold']);
  });

  test('J3: what the leader found reaches every member, and what another program sent there is not taken for it', () => {
    const members = ['m1', 'm2'].map((memberId) => ({ memberId, memberMetadata: subscription(['t']).metadata }));
    for (const { memberAssignment } of assign(members, () => [0], ['t']))
      expect(decodeAssignment(memberAssignment).grown).toEqual(new Set(['t']));
    const { MemberAssignment } = kafkajs.AssignerProtocol;
    for (const text of ['', 'x', '{}', 'null', '[]', '{"grown":[1]}', '{"grown":"t"}']) {
      expect(
        decodeAssignment(MemberAssignment.encode({ version: 0, assignment: {}, userData: Buffer.from(text) })).grown,
      ).toBeUndefined();
    }
  });

  test('does not leave a topic out at once that a broker has not heard of yet', async () => {
    const kafka = new FakeKafka();
    kafka.ids['t'] = undefined;
    setTimeout(() => (kafka.ids['t'] = 'id-t'), 300);
    const dealt: Buffer[] = [];
    const coordinator = {
      ...Object.fromEntries(
        [
          'isConnected',
          'apiVersions',
          'metadata',
          'findGroupCoordinator',
          'heartbeat',
          'leaveGroup',
          'offsetCommit',
          'listOffsets',
          'fetch',
        ].map((name) => [name, vi.fn()]),
      ),
      offsetFetch: async () => ({ responses: [] }),
      connectionPool: { send: vi.fn(), getConnection: vi.fn() },
      joinGroup: async () => ({
        generationId: 1,
        groupProtocol: 'RoundRobinAssigner',
        leaderId: 'm',
        memberId: 'm',
        members: [{ memberId: 'm', memberMetadata: subscription(['t', 'u']).metadata }],
      }),
      syncGroup: async ({ groupAssignment }: { groupAssignment: { memberAssignment: Buffer }[] }) => {
        dealt.push(groupAssignment[0]!.memberAssignment);
        return { memberAssignment: groupAssignment[0]!.memberAssignment };
      },
    };
    const connection = kafka.connection();
    const cluster = { ...connection.cluster, findGroupCoordinator: async () => coordinator };
    const membership = new RealMembership(
      { ...connection, cluster } as unknown as KafkaConnection,
      sourceSettings({ brokers: ['127.0.0.1:1'], groupId: 'g', topics: ['t', 'u'] }),
    );
    await membership.join(new AbortController().signal);
    expect(decodeAssignment(dealt[0]!).partitions).toEqual(partitions);
  });
});

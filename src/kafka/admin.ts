/**
 * Questions to a cluster that need no group: who it is, what topics it has, how far a group lags. Each opens a
 * connection of its own and closes it. Imports: abort, errors, kafka/connection, kafka/group, kafkajs.
 */
import type { Admin } from 'kafkajs';
import { within } from '../abort.js';
import { IngestError } from '../errors.js';
import { groupPositions } from './group/group-offsets.js';
import { clientSettings, type ClientSettings, type KafkaClientOptions } from './options.js';
import { isLoginFailure, kafkaError, kafkaType, reasonOf, classifyError } from './connection/classify-error.js';
import { openAdmin, type KafkajsCluster } from './connection/kafka-connection.js';

/** For one broker of the list; as much again for a second and a third, should the first be silent. */
const ADMIN_LIMIT_MS = 10_000;
const CLOSE_LIMIT_MS = 500;

/**
 * Makes calls as an administrator; the connection is closed before it resolves. Fails within about ten seconds, thirty
 * where three brokers or more are listed, or within `limitMs`.
 */
export async function withAdmin<T>(
  settings: ClientSettings,
  doing: string,
  use: (admin: Admin, cluster: KafkajsCluster) => Promise<T>,
  limitMs = adminLimitMs(settings),
): Promise<T> {
  // Half of what there is for each: one that is silent leaves time for the next.
  const { admin, cluster, end } = openAdmin({
    ...settings,
    requestTimeoutMs: Math.min(
      settings.requestTimeoutMs,
      settings.brokers.length > 1 ? ADMIN_LIMIT_MS / 2 : ADMIN_LIMIT_MS,
    ),
  });
  const answer = (async () => {
    await admin.connect();
    return { value: await use(admin, cluster) };
  })();
  let failure: unknown;
  let told: readonly string[] = [];
  try {
    const result = await within(
      answer.catch((thrown: unknown) => ((failure = thrown), undefined)),
      limitMs,
    );
    if (result !== undefined) return result.value;
    told = cluster.brokerPool.metadata?.brokers.map(({ host, port }) => `${host}:${port}`) ?? [];
  } finally {
    await within(admin.disconnect(), CLOSE_LIMIT_MS);
    end();
  }
  throw adminError(failure, doing, { settings, limitMs, told });
}

function adminLimitMs({ brokers }: ClientSettings): number {
  return ADMIN_LIMIT_MS * Math.min(brokers.length, 3);
}

interface AdminFailure {
  readonly settings: ClientSettings;
  readonly limitMs: number;
  /** The addresses that a broker of the list gave for all of them. */
  readonly told: readonly string[];
}

function adminError(
  thrown: unknown,
  doing: string,
  { settings: { brokers, sasl, ssl }, limitMs, told }: AdminFailure,
): IngestError {
  if (thrown instanceof IngestError) return thrown;
  if (isLoginFailure(thrown)) {
    const how = sasl === undefined ? '' : ` (${sasl.mechanism}${'username' in sasl ? `, user ${sasl.username}` : ''})`;
    return new IngestError('KCR_PREFLIGHT', `Kafka refused the login${how}: ${reasonOf(thrown)}`, {
      serverCode: kafkaType(thrown),
      hint: 'check sasl.mechanism, the user and the password against what the broker has',
      cause: thrown,
    });
  }
  if (kafkaType(thrown) === 'ILLEGAL_SASL_STATE') {
    return new IngestError(
      'KCR_PREFLIGHT',
      `The listener at ${brokers.join(', ')} takes no login, and kafka.sasl is set`,
      {
        serverCode: 'ILLEGAL_SASL_STATE',
        hint: 'give the address of the listener with SASL, or take kafka.sasl out',
        cause: thrown,
      },
    );
  }
  if (thrown !== undefined && classifyError(thrown) === 'fatal') return kafkaError(thrown, doing);
  if (kafkaType(thrown) !== undefined) {
    // A broker that has just been started, or an election: the same call may succeed later.
    return new IngestError('KCR_KAFKA_UNREACHABLE', `${doing} failed: ${reasonOf(thrown)}`, {
      serverCode: kafkaType(thrown),
      hint: 'the cluster is not ready: try again in a while',
      cause: thrown,
    });
  }
  const why = thrown === undefined ? `no answer within ${limitMs / 1000} s` : reasonOf(thrown);
  const elsewhere = told.filter((address) => !brokers.includes(address));
  if (elsewhere.length > 0) {
    const message =
      `Kafka answers at ${brokers.join(', ')} and gives the address ${elsewhere.join(', ')}, where ` +
      `no broker is reached from here: ${why}`;
    return new IngestError('KCR_KAFKA_UNREACHABLE', message, {
      hint:
        "set the brokers' advertised.listeners to addresses that this machine reaches, or give the address of " +
        'the listener that is meant for it',
      cause: thrown,
    });
  }
  const secured =
    ssl === false && sasl === undefined
      ? '; a listener that wants TLS or a login closes the connection: then set ssl or sasl'
      : '';
  return new IngestError('KCR_KAFKA_UNREACHABLE', `No Kafka broker answers at ${brokers.join(', ')}: ${why}`, {
    hint: `check the addresses, that a broker listens there and that nothing in between blocks it${secured}`,
    cause: thrown,
  });
}

export async function clusterId(settings: ClientSettings): Promise<string> {
  return withAdmin(settings, "Asking for the cluster's id", async (admin) => (await admin.describeCluster()).clusterId);
}

/** How far a group is in one partition. */
export interface PartitionLag {
  readonly topic: string;
  readonly partition: number;
  /** The offset the next record will get. */
  readonly end: number;
  /** Undefined: the group has committed nothing. */
  readonly committed: number | undefined;
  /** Offsets between them; from the log's beginning when nothing was committed. */
  readonly lag: number;
}

/** How far a group is behind the ends of the topics. Offsets, not records: transactions and compaction leave holes. */
export async function lagOf(
  options: KafkaClientOptions & { readonly groupId: string; readonly topics: readonly string[] },
): Promise<readonly PartitionLag[]> {
  const { groupId, topics } = options;
  return withAdmin(clientSettings(options), `Asking for the lag of ${groupId}`, async (_, cluster) => {
    const positions = await groupPositions(cluster, groupId, topics);
    return positions.map(({ topic, partition, logStart, logEnd, committed }) => ({
      topic,
      partition,
      end: logEnd,
      committed,
      lag: Math.max(0, logEnd - (committed ?? logStart)),
    }));
  });
}

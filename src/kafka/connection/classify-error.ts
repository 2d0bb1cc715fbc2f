/**
 * What went wrong, as far as kafkajs lets one know: sorts its errors into what the source does about them.
 * Imports: errors.
 */
import { IngestError, type ErrorFields } from '../../errors.js';

/**
 * - `rebalance`: the group is being divided again; join again.
 * - `fenced`: the group knows this member or this generation no more.
 * - `coordinator`: somebody else coordinates the group; ask who.
 * - `leader`: somebody else leads the partition; ask who.
 * - `transient`: connection lost, time-out, a broker that is starting; the same call may succeed later.
 * - `fatal`: no retry mends it.
 */
export type ErrorClass = 'rebalance' | 'fenced' | 'coordinator' | 'leader' | 'transient' | 'fatal';

const BY_TYPE: Readonly<Record<string, ErrorClass>> = {
  REBALANCE_IN_PROGRESS: 'rebalance',
  ILLEGAL_GENERATION: 'fenced',
  UNKNOWN_MEMBER_ID: 'fenced',
  FENCED_INSTANCE_ID: 'fenced',
  NOT_COORDINATOR_FOR_GROUP: 'coordinator',
  GROUP_COORDINATOR_NOT_AVAILABLE: 'coordinator',
  GROUP_LOAD_IN_PROGRESS: 'coordinator',
  LEADER_NOT_AVAILABLE: 'leader',
  NOT_LEADER_FOR_PARTITION: 'leader',
  FENCED_LEADER_EPOCH: 'leader',
  UNKNOWN_LEADER_EPOCH: 'leader',
  UNKNOWN_TOPIC_OR_PARTITION: 'leader',
  UNKNOWN_TOPIC_ID: 'leader',
  INCONSISTENT_TOPIC_ID: 'leader',
  REPLICA_NOT_AVAILABLE: 'leader',
  KAFKA_STORAGE_ERROR: 'leader',
  OFFSET_NOT_AVAILABLE: 'transient',
  BROKER_NOT_AVAILABLE: 'transient',
  UNKNOWN: 'transient',
  INVALID_TOPIC_EXCEPTION: 'fatal',
  TOPIC_AUTHORIZATION_FAILED: 'fatal',
  GROUP_AUTHORIZATION_FAILED: 'fatal',
  CLUSTER_AUTHORIZATION_FAILED: 'fatal',
  SASL_AUTHENTICATION_FAILED: 'fatal',
  UNSUPPORTED_SASL_MECHANISM: 'fatal',
  ILLEGAL_SASL_STATE: 'fatal',
  INCONSISTENT_GROUP_PROTOCOL: 'fatal',
  INVALID_GROUP_ID: 'fatal',
  INVALID_SESSION_TIMEOUT: 'fatal',
  GROUP_MAX_SIZE_REACHED: 'fatal',
  OFFSET_METADATA_TOO_LARGE: 'fatal',
  UNSUPPORTED_VERSION: 'fatal',
};

const HINTS: Readonly<Record<string, string>> = {
  TOPIC_AUTHORIZATION_FAILED: 'grant READ and DESCRIBE on the topics to this user',
  GROUP_AUTHORIZATION_FAILED: 'grant READ on the consumer group to this user',
  INCONSISTENT_GROUP_PROTOCOL:
    'the group has members of another client with another assignor; use a groupId of its own',
  INVALID_SESSION_TIMEOUT:
    "choose sessionTimeoutMs between the broker's group.min.session.timeout.ms and group.max.session.timeout.ms",
  GROUP_MAX_SIZE_REACHED: "the group has as many members as the broker's group.max.size allows",
};

interface KafkaJsError {
  readonly name?: unknown;
  readonly type?: unknown;
  readonly code?: unknown;
  readonly message?: unknown;
  readonly cause?: unknown;
}

/** The error and its causes, outermost first. kafkajs hides the protocol's answer in wrappers. */
function* chain(thrown: unknown): Generator<KafkaJsError> {
  let error = thrown;
  for (let depth = 0; depth < 8 && typeof error === 'object' && error !== null; depth++) {
    yield error;
    error = (error as KafkaJsError).cause;
  }
}

/** Kafka's name for the error, as `UNKNOWN_MEMBER_ID`; undefined when no broker said it. */
export function kafkaType(thrown: unknown): string | undefined {
  for (const { type } of chain(thrown)) if (typeof type === 'string') return type;
  return undefined;
}

export function isLoginFailure(thrown: unknown): boolean {
  for (const { name, type } of chain(thrown)) {
    if (name === 'KafkaJSSASLAuthenticationError') return true;
    if (type === 'SASL_AUTHENTICATION_FAILED' || type === 'UNSUPPORTED_SASL_MECHANISM') return true;
  }
  return false;
}

/** The server's certificate was refused by us; no retry mends that. */
function isCertificateFailure(thrown: unknown): boolean {
  for (const { code } of chain(thrown)) {
    if (typeof code === 'string' && /CERT|SELF_SIGNED|UNABLE_TO_VERIFY|UNABLE_TO_GET_ISSUER/.test(code)) return true;
  }
  return false;
}

export function isTimeout(thrown: unknown): boolean {
  for (const { name } of chain(thrown)) if (name === 'KafkaJSRequestTimeoutError') return true;
  return false;
}

export function classifyError(thrown: unknown): ErrorClass {
  if (thrown instanceof IngestError) return thrown.retryable ? 'transient' : 'fatal';
  if (isLoginFailure(thrown) || isCertificateFailure(thrown)) return 'fatal';
  const type = kafkaType(thrown);
  if (type !== undefined) return BY_TYPE[type] ?? 'transient';
  for (const { name } of chain(thrown)) {
    // A defect in the client: it would throw for ever.
    if (name === 'TypeError' || name === 'RangeError' || name === 'ReferenceError' || name === 'SyntaxError')
      return 'fatal';
    if (name === 'KafkaJSServerDoesNotSupportApiKey') return 'fatal';
  }
  return 'transient';
}

/**
 * What became of a commit that failed:
 *
 * - `fenced`: refused, its generation is over.
 * - `refused`: no retry mends it.
 * - `tooLarge`: the broker keeps no metadata of that size.
 * - `before`: nothing of it can take effect after what a coordinator accepts from now on. It was never sent, or the one
 *   who answered does not coordinate the group: should it have been appended all the same, as a coordinator that is
 *   just going may do, then before everything that the next one appends. So it may be made again.
 * - `unknown`: it may take effect at any later time. It was sent and no answer came, so a copy may still lie in the
 *   buffers of a broker that hangs; or the answer says only that it is not replicated yet.
 */
export type CommitOutcome = 'fenced' | 'refused' | 'tooLarge' | 'before' | 'unknown';

const BEFORE: ReadonlySet<string> = new Set([
  'NOT_COORDINATOR_FOR_GROUP',
  'GROUP_LOAD_IN_PROGRESS',
  'REBALANCE_IN_PROGRESS',
  'UNKNOWN_TOPIC_OR_PARTITION',
]);
const TOO_LARGE: ReadonlySet<string> = new Set(['OFFSET_METADATA_TOO_LARGE', 'INVALID_COMMIT_OFFSET_SIZE']);

/** `isSent`: its bytes may have left this process. */
export function commitOutcome(thrown: unknown, isSent: boolean): CommitOutcome {
  const trouble = classifyError(thrown);
  if (!isSent) return trouble === 'fatal' ? 'refused' : 'before';
  const type = kafkaType(thrown);
  if (type === undefined) return 'unknown';
  if (trouble === 'fenced') return 'fenced';
  if (TOO_LARGE.has(type)) return 'tooLarge';
  if (BEFORE.has(type)) return 'before';
  return trouble === 'fatal' ? 'refused' : 'unknown';
}

/** What was thrown, in words. */
export function reasonOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message || thrown.name : String(thrown);
}

/** A `KCR_KAFKA` error that says which call failed and why. */
export function kafkaError(thrown: unknown, doing: string, fields: ErrorFields = {}): IngestError {
  if (thrown instanceof IngestError) return thrown;
  const type = kafkaType(thrown);
  const hint = isLoginFailure(thrown)
    ? 'check sasl.mechanism, the user and the password against what the broker has'
    : isCertificateFailure(thrown)
      ? "give the certificate of the broker's authority as ssl.ca, and its name as ssl.servername"
      : type === undefined
        ? undefined
        : HINTS[type];
  return new IngestError('KCR_KAFKA', `${doing} failed: ${reasonOf(thrown)}`, {
    ...fields,
    serverCode: type,
    hint,
    cause: thrown,
  });
}

/**
 * Public entry `kafka-clickhouse-rx`.
 * Imports: clickhouse, config, errors, events, from-records, kafka, ledger, model, node-streams, observe, pipeline,
 * ports, preflight, retry, state.
 */
export type { Ingestion } from './pipeline/ingestion.js';
export type { OwnPorts, OwnPortsConfig } from './pipeline/own-ports.js';
export { ingest, openPorts, pipelineOf, type IngestOptions, type OpenPorts, type Ports } from './pipeline/ingest.js';
export { exactlyOnce, type ExactlyOnceConfig } from './pipeline/exactly-once.js';
export { atLeastOnce, type AtLeastOnceConfig } from './pipeline/at-least-once.js';
export { atMostOnce, type AtMostOnceConfig } from './pipeline/at-most-once.js';
export type { Delivery, PipelineConfig } from './pipeline/config.js';
export { preflight } from './preflight/preflight.js';
export { checkConfig, type CheckedConfig, type IngestConfig } from './config/config.js';
export { Ledger, type LedgerConfig, type PartitionLedger } from './ledger.js';
export { toReadable } from './node-streams.js';
export { fromRecords, type FromRecordsConfig, type PlainRecord } from './from-records.js';

/** What an ingestion does at this moment. */
export type { Halt, IngestStatus, Limit, Observed, PartitionProgress } from './observe/status.js';
export type { Call, CallEnd, MeterListener, Phase } from './observe/meter.js';
export type { Notice } from './observe/notice.js';
export type { Totals } from './observe/totals.js';
export { registerOpenTelemetry, type OpenTelemetryConfig } from './observe/open-telemetry.js';
export { registerMetrics, type MetricsConfig } from './observe/metrics.js';
export { serveControl, type ControlSocket } from './observe/control-socket.js';
export type { Controls } from './observe/control.js';
export type { PartitionSelection } from './model/pauses.js';
export { serveStatus, type StatusServer, type StatusServerConfig } from './observe/http.js';

/** Adapters. */
export {
  kafkaSource,
  type KafkaSource,
  type KafkaSourceOptions,
  type OutOfRange,
  type SaslOptions,
} from './kafka/source.js';
export { checkKafka, lagOf, type PartitionLag } from './kafka/preflight.js';
export { openCheckedSink as openClickHouseSink, type SinkNeeds } from './clickhouse/checked-sink.js';
export type { ClickHouseSinkOptions } from './clickhouse/options.js';
export { checkClickHouse, type Finding, type Needs } from './clickhouse/preflight.js';
export {
  checkKafkaStore,
  kafkaStore,
  offsetOf,
  stateFromOffset,
  type CommittedOffset,
  type KafkaStore,
  type KafkaStoreCheck,
  type KafkaStoreConfig,
  type OffsetsAdmin,
  type OffsetSource,
} from './state/kafka.js';
export { checkKeeper, keeperStore, type KeeperStoreConfig } from './state/keeper.js';
export { checkKeeperMap, keeperMapStore, type KeeperMapStoreConfig } from './state/keeper-map.js';
export { memoryStore } from './state/memory.js';

/** Ports and values. */
export type * from './ports.js';
export type { Assignment, Batch, Chunk, KafkaRecord, RecordHeaders, Records } from './model/record.js';
export { emptyState, type Intent, type PartitionState } from './model/state.js';
export { decodeState, encodeState, type StateName, type StoredState } from './model/state-codec.js';
export type { RetryConfig } from './retry.js';
export type { Delivered, Halted, IngestEvent, Outcome, OnEvent } from './events.js';
export { IngestError, asIngestError, errorCodes, hasCode, type ErrorCode, type ErrorFields } from './errors.js';

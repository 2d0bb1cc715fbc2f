/**
 * What a control batch says: whether a transaction was committed or aborted. Pure. Imports: model.
 */
import { PackedRecords, PartBuilder } from '../../model/packed-records.js';
import type { BatchHead } from './batch-head.js';
import { BadBatch } from './damage.js';
import { headersAt, RecordParser } from './record-parser.js';
import { checkedBody } from './unpack-batches.js';

/** A control batch's record has a version and a type as its key: 0 aborts, 1 commits. */
export function isAbortMarker(head: BatchHead): boolean {
  if (head.count === 0) return false; // compaction took it
  const body = checkedBody({ head });
  if (!Buffer.isBuffer(body)) throw body;
  const builder = new PartBuilder(head.count, headersAt);
  new RecordParser(builder).read(head, body, 0);
  const key = PackedRecords.of([builder.build()]).at(0)?.key ?? null;
  if (key === null || key.length < 4 || key.readInt16BE(0) < 0)
    throw new BadBatch('it is a control batch whose key does not say what it controls');
  return key.readInt16BE(2) === 0;
}

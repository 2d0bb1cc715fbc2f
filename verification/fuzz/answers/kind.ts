// Answers: what servers send back, and what comes instead of it.
import type { Finding, Kind, KindOptions } from '../kind.js';
import { Random } from '../random.js';
import { brokerFault } from './broker.js';
import { anyStatus200, asShipped, ClickHouseAnswers } from './clickhouse.js';
import { frameFault } from './frames.js';
import { cutAsShipped, decodeAsShipped, type AnswerSubject, type FrameSubject } from './subject.js';

/** Broken on purpose: what cannot be read is taken for an answer that says nothing. */
const decodeAnything: AnswerSubject = {
  fetch: (...args) => decodeAsShipped.fetch(...args).catch(() => []),
  metadata: (payload) => decodeAsShipped.metadata(payload).catch(() => []),
};
/** Broken on purpose: a length of nothing is believed. */
const cutWithoutLimit: FrameSubject = (pieces) => ({ ...cutAsShipped(pieces), isBroken: false });

export async function openAnswers({ seed, control }: KindOptions): Promise<Kind> {
  const clickhouse = await ClickHouseAnswers.open(control ? anyStatus200 : asShipped);
  const [decode, cut] = control ? [decodeAnything, cutWithoutLimit] : [decodeAsShipped, cutAsShipped];
  return {
    concurrency: 4,
    run: (caseNumber) => {
      const random = new Random(seed, 'answers', caseNumber);
      const shape = random.int(10);
      if (shape < 5) return brokerFault(random, decode).then(inBase64);
      if (shape < 8) return inBase64(frameFault(random, cut));
      return clickhouse
        .fault(random, caseNumber)
        .then(({ what, input }) => (what === undefined ? undefined : { what, input }));
    },
    close: () => clickhouse.close(),
  };
}

function inBase64({ what, bytes }: { readonly what: string | undefined; readonly bytes: Buffer }): Finding | undefined {
  return what === undefined ? undefined : { what, input: `base64 ${bytes.toString('base64')}` };
}

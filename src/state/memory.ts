/**
 * The state store in this process's memory, for tests and for at-least-once. It survives no restart.
 * Imports: errors, model, ports, rxjs.
 */
import { defer, of } from 'rxjs';
import { IngestError } from '../errors.js';
import { decodeState, encodeState, neverStored } from '../model/state-codec.js';
import type { Claim, StateKey, StateStore } from '../ports.js';
import { asStored, fencedBy, nextText, type Mark } from './write-marks.js';

/** What a memory store holds: text by key, with the number of writes it has seen. */
export type MemoryNodes = Map<string, { readonly text: string; readonly version: number }>;

/** Stores that are given the same `nodes` compete for the same partitions, as processes do for a server's. */
export function memoryStore(nodes: MemoryNodes = new Map()): StateStore {
  const stored = (key: StateKey) => {
    const node = nodes.get(nameOf(key));
    return node === undefined ? neverStored : decodeState(node.text, key);
  };
  const put = (key: StateKey, text: string): number => {
    const version = (nodes.get(nameOf(key))?.version ?? 0) + 1;
    nodes.set(nameOf(key), { text, version });
    return version;
  };

  return {
    name: 'memory',

    claim: (key, owner) =>
      defer(() => {
        const { state } = stored(key);
        // Of one key's claims no two have the same version. No counter: the same calls leave the same text.
        const claimId = `m${(nodes.get(nameOf(key))?.version ?? 0) + 1}`;
        const version = put(key, encodeState({ state, owner, write: `${claimId}-0` }, key));
        return of<Claim>({ key, owner, state, version: { version, claimId, writes: 0 } satisfies Mark });
      }),

    write: ({ key, owner, version }, state) =>
      defer(() => {
        const mark = version as Mark;
        const text = nextText(key, owner, mark, state);
        const node = nodes.get(nameOf(key));
        if (node === undefined) throw new IngestError('KCR_STORE', 'The state was deleted while it was claimed', key);
        if (node.version !== mark.version && node.text !== text) throw fencedBy(key, owner, mark, node.text);
        const next: Mark = {
          ...mark,
          writes: mark.writes + 1,
          version: node.text === text ? node.version : put(key, text),
        };
        return of<Claim>({ key, owner, state, version: next });
      }),

    read: (key) => defer(() => of(asStored(stored(key)))),

    close: () => Promise.resolve(),
  };
}

function nameOf({ cluster, group, topic, partition }: StateKey): string {
  return JSON.stringify([cluster, group, topic, partition]);
}

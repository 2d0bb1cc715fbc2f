import { memoryStore, type MemoryNodes } from '../../src/state/memory.js';
import type { StateKey } from '../../src/ports.js';
import { stateStoreContract } from './contract.js';

stateStoreContract('the memory store', async () => {
  const nodes: MemoryNodes = new Map();
  const nameOf = ({ cluster, group, topic, partition }: StateKey) => JSON.stringify([cluster, group, topic, partition]);
  return {
    open: () => memoryStore(nodes),
    peek: async (key) => nodes.get(nameOf(key))?.text,
    poke: async (key, text) => {
      const version = (nodes.get(nameOf(key))?.version ?? 0) + 1;
      nodes.set(nameOf(key), { text, version });
    },
    stop: async () => undefined,
  };
});

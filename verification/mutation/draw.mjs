// A checker of Stryker's that lets one mutant in MUTATION_ONE_IN through, drawn by MUTATION_SEED: the same ones each time,
// whatever else is mutated. The others count as not compiled, which no score counts.
import { createHash } from 'node:crypto';
import { PluginKind, declareFactoryPlugin } from '@stryker-mutator/api/plugin';

const oneIn = Number(process.env.MUTATION_ONE_IN ?? 1);
const seed = process.env.MUTATION_SEED ?? '1';

function isDrawn({ fileName, location, mutatorName, replacement }) {
  const file = fileName.replaceAll('\\', '/').replace(/^.*\/sandbox-[^/]*\//, '');
  const text = JSON.stringify([seed, file, location, mutatorName, replacement]);
  return createHash('sha256').update(text).digest().readUInt32BE(0) % oneIn === 0;
}

const status = (mutant) => (isDrawn(mutant) ? { status: 'passed' } : { status: 'compileError', reason: 'not drawn' });

export const strykerPlugins = [
  declareFactoryPlugin(PluginKind.Checker, 'draw', () => ({
    init: async () => undefined,
    check: async (mutants) => Object.fromEntries(mutants.map((mutant) => [mutant.id, status(mutant)])),
    group: async (mutants) => [mutants.map(({ id }) => id)],
  })),
];

import { drawn, scenarioOf } from './scenario.js';
import { campaign } from './random.js';
import { shrink } from './shrink.js';
Error.stackTraceLimit = 0;
for (const key of Object.keys(drawn) as (keyof typeof drawn)[]) {
  drawn[key] = true;
  const { failures, lives, seeds } = campaign({ seeds: 6000, maxSeconds: 60, maxFailures: 3 });
  console.log(key, { seeds, lives }, failures.map((f) => `seed ${f.seed}: ${f.findings.map((x) => `${x.kind} (${x.what})`).join(', ')}`).join(' | ').slice(0, 500));
  if (failures[0]) console.log(JSON.stringify(shrink(scenarioOf(failures[0].seed)).scenario));
  drawn[key] = false;
}

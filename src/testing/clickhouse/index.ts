/**
 * What the simulation takes of the simulated ClickHouse. Imports: nothing.
 */
export { SimulatedClickHouse } from './server.js';
export { openShippedSink, Tokens } from './sink.js';
export { SimulatedWire, type Tampering } from './wire.js';
export { exception, type Request, type Response } from './requests.js';

/**
 * The hot loop over values' bytes. Imports nothing. Imports: nothing.
 */
export {
  faultText,
  FaultKind,
  MAX_DEPTH,
  type ProvenanceName,
  provenanceNames,
  type ReservedNames,
  reservedNames,
} from './faults.js';
export { isSpace, twinFault } from './twin.js';
export { checkByTwin, checkValues, hasKernel, type IndexedFault, type ValueCursor, valueFault } from './value-check.js';

// The provider's signing keys: one of each algorithm that Cortex may be told to accept.
import { exportJWK, generateKeyPair } from 'jose';

/** What a token may be signed with, and how its key is made. */
export const ALGORITHMS = {
  RS256: { modulusLength: 2048 },
  ES256: {},
  EdDSA: { crv: 'Ed25519' },
};

/** One private JWK for each algorithm; the generation makes the key ids differ between rotations. */
export async function newKeys(generation) {
  return Promise.all(Object.entries(ALGORITHMS).map(async ([alg, options]) => {
    const { privateKey } = await generateKeyPair(alg, { ...options, extractable: true });
    return { ...await exportJWK(privateKey), alg, use: 'sig', kid: `${alg.toLowerCase()}-${generation}` };
  }));
}

// The same types, as an ES module finds them.
import { TokenCache, type Token } from 'amp-token';

export const token: Promise<Token> = new TokenCache().get();

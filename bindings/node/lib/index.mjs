import binding from './index.cjs';

export const { AmpError, Token, TokenCache, attachToAxios, createDynamicContent, createFetch, version } = binding;

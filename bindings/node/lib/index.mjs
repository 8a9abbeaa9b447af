import binding from './index.js';

export const { AmpError, Token, TokenCache, attachToAxios, createDynamicContent, createFetch, version } = binding;

export const ROUTES = {
  home: "/",
  about: "/about",
} as const;

export type Route = keyof typeof ROUTES;

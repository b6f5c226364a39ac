import { Router, Request, Response, NextFunction } from "express";
import type { Db } from "./db";

export function usersRouter(db: Db): Router {
  const router = Router();
  router.get("/:id", async (req: Request, res: Response, next: NextFunction) => {
    try {
      const user = await db.users.findOne({ id: req.params.id });
      if (!user) {
        res.status(404).end();
        return;
      }
      res.json(user);
    } catch (e) {
      next(e);
    }
  });
  return router;
}

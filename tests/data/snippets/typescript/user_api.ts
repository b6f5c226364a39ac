interface User {
  id: number;
  name: string;
  email?: string;
}

export async function loadUser(id: number): Promise<User> {
  const response = await fetch(`/api/users/${id}`);
  if (!response.ok) {
    throw new Error(`could not load user ${id}`);
  }
  return (await response.json()) as User;
}

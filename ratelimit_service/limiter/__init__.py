"""From request to verdict: bytes, plan, charges, verdict, bytes."""

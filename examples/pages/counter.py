"""A page of Streamlit: a button that counts, and a count that goes on for half a minute."""
import time

import streamlit as st

who = st.context.headers
st.title("Counter")
st.write(f"You are {who.get('X-WEBAUTH-USER')}, {who.get('X-WEBAUTH-EMAIL')}, in {who.get('X-WEBAUTH-GROUPS')}")
if st.button("Count"):
    st.session_state.count = st.session_state.get("count", 0) + 1
st.write(f"Counted {st.session_state.get('count', 0)}")
if st.button("Go on"):
    place = st.empty()
    for second in range(600):
        place.write(f"Second {second}")
        time.sleep(1)
